-- How much work was saved because the same step had been done before? Events of the last day, by pipeline and step.
select j.pipeline, e.step, count(*) filter (where e.kind = 'step_completed') as completed,
  count(*) filter (where e.kind = 'reused') as reused,
  round(100.0 * count(*) filter (where e.kind = 'reused')
        / nullif(count(*) filter (where e.kind = 'step_completed'), 0), 1) as percent_reused
from public.job_events e
join public.jobs j on j.id = e.job_id
where e.kind in ('step_completed', 'reused') and e.at > now() - interval '1 day'
group by j.pipeline, e.step
order by reused desc, completed desc;
