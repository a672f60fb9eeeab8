-- A result may be forgotten while an attempt is about to use it again: a reviewer sends back the job that made it, or its
-- document is deleted. Then there is nothing to use, and no reason to fail: the step run is given back, and does the work.

create or replace function ledger.settle(outcomes jsonb[]) returns boolean[]
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan as $$
declare
  accepted boolean[] := '{}';
  completed jsonb[] := '{}';
  o jsonb;
begin
  perform from public.jobs j where j.id = any(array(
    select s.job_id from unnest(outcomes) x(o) join public.job_steps s on s.id = (x.o ->> 'step_run')::uuid
  )) order by j.id for no key update;
  if exists (select from unnest(outcomes) x(o) where x.o -> 'result' ?| '{reuse,description}') then
    perform ledger.lock_touched(outcomes);
    outcomes := ledger.mark_forgotten(outcomes);
  end if;
  foreach o in array outcomes loop
    if o ->> 'verb' = 'complete' then
      completed := completed || o;
      continue;
    end if;
    accepted := accepted || ledger.complete_all(completed);
    completed := '{}';
    accepted := accepted || case o ->> 'verb'
      when 'fail' then ledger.fail((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer, o ->> 'code', o ->> 'message',
                                   o ->> 'detail', (o ->> 'retry_in')::double precision,
                                   (o ->> 'slow_s')::double precision)
      when 'release' then ledger.release((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer)
      when 'redo' then ledger.redo((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer)
    end;
  end loop;
  return accepted || ledger.complete_all(completed);
end $$;

-- The outcomes, in order; those that would use a result that is gone are to be done again. The caller has locked the
-- results that are still there.
create function ledger.mark_forgotten(outcomes jsonb[]) returns jsonb[] language sql volatile as $$
  select array_agg(case when x.o -> 'result' ? 'reuse' and not exists (
                     select from public.step_results r where r.id = (x.o #>> '{result,reuse}')::uuid)
                   then x.o || '{"verb": "redo"}' else x.o end order by x.nr)
  from unnest(outcomes) with ordinality x(o, nr)
$$;

-- Give an attempt back whose result was forgotten. Nothing of it is accepted: always false.
create function ledger.redo(run_id uuid, of_attempt integer) returns boolean language plpgsql as $$
declare
  job public.jobs := ledger.lock_job((select s.job_id from public.job_steps s where s.id = run_id));
  run public.job_steps := ledger.end_attempt(run_id, of_attempt, 'queued');
begin
  if run.id is not null then
    perform ledger.enqueue(array[run.id]);
    job := ledger.note(job, 'step_released', 'The result it was about to use again is gone; it is done anew.', '{}',
                       run.step, run.item, run.attempt);
    perform ledger.save(job);
  end if;
  return false;
end $$;

revoke all on all functions in schema ledger from anon, authenticated, public;
