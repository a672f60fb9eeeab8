-- Which jobs that are not over have not moved for five minutes, and what is the last thing that happened to them?
select j.id, j.tenant_id, j.pipeline, j.status, j.stage, j.percent, now() - j.updated_at as still_for,
  e.kind as last_event, e.step, e.message
from public.jobs j
left join public.job_events e on e.job_id = j.id and e.seq = j.last_seq
where j.finished_at is null and j.updated_at < now() - interval '5 minutes'
order by j.updated_at;
