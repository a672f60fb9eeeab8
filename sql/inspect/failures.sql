-- What went wrong during the last day, most frequent first, with the newest detail for the operator?
select f.code, f.step, count(*) as times, count(distinct f.job_id) as jobs, max(f.at) as last_at,
  (array_agg(f.job_id order by f.at desc))[1] as newest_job,
  left((array_agg(f.detail order by f.at desc))[1], 400) as newest_detail
from ops.failures f
where f.at > now() - interval '1 day'
group by f.code, f.step
order by times desc, last_at desc;
