-- Is any promise of the ledger broken? No row is the right answer.
select invariant, problem, job_id, step_run from ops.drift order by invariant, job_id;
