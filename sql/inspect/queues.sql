-- How much waits in each queue, since when, who serves it, and how many retries are yet to come?
select q.name as queue,
  count(*) filter (where s.status = 'queued') as waiting,
  now() - min(s.queued_at) filter (where s.status = 'queued') as oldest,
  count(*) filter (where s.status = 'running') as running,
  count(*) filter (where s.status = 'retrying') as retrying,
  min(s.due_at) as next_retry,
  (select count(*) from ops.workers w where q.name = any(w.queues) and not w.stopping) as workers
from unnest(array['cpu', 'llm', 'media', 'maintenance']) with ordinality q(name, nr)
left join public.job_steps s on s.queue = q.name and s.finished_at is null
group by q.name, q.nr
order by q.nr;
