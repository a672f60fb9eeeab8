-- Which steps take long, and which wait long for a worker? Completed step runs of the last day, in seconds.
select j.pipeline, s.step, count(*) as runs,
  round(extract(epoch from percentile_cont(0.5) within group (order by s.finished_at - s.started_at))::numeric, 3) as median,
  round(extract(epoch from percentile_cont(0.95) within group (order by s.finished_at - s.started_at))::numeric, 3) as p95,
  round(extract(epoch from max(s.finished_at - s.started_at))::numeric, 3) as longest,
  round(extract(epoch from percentile_cont(0.95) within group (order by s.started_at - s.queued_at))::numeric, 3) as p95_wait
from public.job_steps s join public.jobs j on j.id = s.job_id
where s.status = 'completed' and s.finished_at > now() - interval '1 day'
group by j.pipeline, s.step
order by sum(s.finished_at - s.started_at) desc;
