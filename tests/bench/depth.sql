-- Fill the ledger by copying the rows of a real job, so that copies are what the ledger itself would have written.
-- Parameters: %(job)s the job to copy, %(copies)s how many, %(run)s fields of the step run to change (jsonb),
-- %(queued)s whether each copy gets a queue job; and {columns}, those of a job that are not generated.
-- Each copy has parameters of its own: equal ones would be answered from the result of the first that is run.
-- A row is populated in FROM: behind `(...).*` it would be populated again for each of its columns.

set session_replication_role = replica;

create temporary table copies as
select n, ledger.uuid7() as job, ledger.uuid7() as run,
       encode(sha256(int8send(n) || uuid_send(ledger.uuid7())), 'hex') as digest,
       case when %(queued)s then nextval('procrastinate.procrastinate_jobs_id_seq') end as queue_job,
       (select coalesce(min(s.priority), 0) from public.job_steps s) - 10 * n as priority
from generate_series(1, %(copies)s) n;

insert into public.jobs ({columns}) select {columns} from (
  select r.* from copies c, public.jobs j,
         lateral jsonb_populate_record(j, jsonb_build_object(
           'id', c.job, 'params', j.params || jsonb_build_object('mark', c.job),
           'payload_digest', c.digest, 'natural_key', c.digest || substring(j.natural_key from ':.*'))) r
  where j.id = %(job)s order by c.n) copied;

insert into public.job_step_totals
select r.* from copies c, public.job_step_totals t,
       lateral jsonb_populate_record(t, jsonb_build_object('job_id', c.job)) r
where t.job_id = %(job)s order by c.n;

insert into public.job_steps
select r.* from copies c, public.job_steps s,
       lateral jsonb_populate_record(s, %(run)s::jsonb || jsonb_build_object(
         'id', c.run, 'job_id', c.job, 'queue_job_id', c.queue_job, 'priority', c.priority)) r
where s.job_id = %(job)s order by c.n;

insert into public.job_events
select r.* from copies c, public.job_events e,
       lateral jsonb_populate_record(e, jsonb_build_object('job_id', c.job)) r
where e.job_id = %(job)s order by c.n, e.seq;

insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
select c.queue_job, s.queue, 'run_step', c.priority, ledger.queue_args(c.run, s.tenant_id)
from copies c, public.job_steps s where s.job_id = %(job)s and c.queue_job is not null order by c.n;

drop table copies;
set session_replication_role = origin;
