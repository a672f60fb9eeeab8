-- Who is working, on what, and when was each last heard of?
select w.host, w.pid, w.deploy, array_to_string(w.queues, ',') as queues, w.stopping,
  now() - w.started_at as up, now() - w.heartbeat_at as silent_for,
  (select count(*) from public.job_steps s where s.finished_at is null and s.worker_id = w.id) as in_hand
from ops.workers w
order by w.heartbeat_at desc;
