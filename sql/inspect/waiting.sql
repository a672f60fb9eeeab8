-- Which step runs wait, for what, and since when? The 200 that have waited longest.
select s.job_id, j.tenant_id, j.pipeline, s.step, s.item, s.queue, now() - coalesce(s.queued_at, s.created_at) as waits_for,
  case
    when s.status = 'retrying' then format('a retry at %s, after %s', to_char(s.due_at, 'HH24:MI:SS'), s.error_code)
    when s.status = 'gated' then 'a reviewer'
    when s.status = 'held' then 'its tenant, whose work is paused'
    when ledger.open_queues(array[s.queue]) = '{}' then 'its queue, which is paused'
    when not ledger.served(s.queue) then 'a worker: nobody alive serves this queue'
    else 'its turn'
  end as why
from public.job_steps s
join public.jobs j on j.id = s.job_id
where s.finished_at is null and s.status in ('queued', 'retrying', 'gated', 'held')
order by coalesce(s.queued_at, s.created_at)
limit 200;
