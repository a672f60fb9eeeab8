-- What is being worked on right now, by whom, since when, and how far is it?
select s.job_id, j.pipeline, s.step, s.item, s.attempt, now() - s.started_at as running_for,
  case when s.progress_total > 0 then s.progress_current || ' of ' || s.progress_total end as progress,
  w.host, w.pid, now() - w.heartbeat_at as worker_silent_for
from public.job_steps s
join public.jobs j on j.id = s.job_id
left join ops.workers w on w.id = s.worker_id
where s.finished_at is null and s.status = 'running'
order by s.started_at;
