-- Digests that are looked for by indexes a third as large. What they are asked for comes at random: each job looks into a
-- page of its own of each, so that they are worth what of them stays in memory, and a page that was not written to since the
-- last checkpoint is written to the log in whole.

-- What stands for a key of a tenant in an index: 16 bytes of a digest of both.
create function ledger.short_key(of_tenant uuid, key text) returns uuid language sql immutable parallel safe as $$
  select substr(encode(sha256(convert_to(of_tenant::text || key, 'UTF8')), 'hex'), 1, 32)::uuid
$$;

drop index public.jobs_natural_key;
create unique index jobs_natural_key on public.jobs (ledger.short_key(tenant_id, natural_key))
  where natural_key is not null and (ended is null or ended = 'completed');
drop index public.step_results_by_identity;
create index step_results_by_identity on public.step_results (ledger.short_key(tenant_id, identity), id desc);

-- The job that an equal request made before, null when there is none; a refusal when the key was used for something else.
create or replace function ledger.find_equal(wanted ledger.submission) returns uuid language plpgsql as $$
declare
  job public.jobs;
  payload text := ledger.payload_digest(wanted);
begin
  if wanted.idempotency_key is not null then
    select j.* into job from public.jobs j
    where j.tenant_id = wanted.tenant_id and j.idempotency_key = wanted.idempotency_key;
  else
    select j.* into job from public.pipelines p join public.pipeline_graphs g on g.digest = p.graph
    join public.jobs j on j.tenant_id = wanted.tenant_id and (j.ended is null or j.ended = 'completed')
      and j.natural_key = ledger.natural_key(payload, wanted.fresh, g.version)
      and ledger.short_key(j.tenant_id, j.natural_key)
        = ledger.short_key(wanted.tenant_id, ledger.natural_key(payload, wanted.fresh, g.version))
    where p.name = wanted.pipeline;
  end if;
  if job.payload_digest <> payload then
    perform ledger.refuse(422, 'idempotency_key_reused',
      format('This Idempotency-Key was already used for another request, which made job %s.', job.id),
      jsonb_build_object('job_id', job.id));
  end if;
  return job.id;
end $$;

-- Begin the attempts of queue jobs, all in one statement: of those whose step run still waits for its queue job. What it
-- says of each is everything an attempt needs; but lists of mapped results are left to `ledger.gather`: they can be long.
create or replace function ledger.begin(picked ledger.picked, for_worker uuid) returns ledger.begun language plpgsql as $$
declare
  ids bigint[];
  works jsonb[];
  tidings text[];
begin
  perform from public.jobs j where j.id = any(array(select s.job_id from public.job_steps s where s.id = any(picked.runs)))
  order by j.id for no key update;
  with begun as (
    update public.job_steps s set
      status = 'running', attempt = s.attempt + 1, identity = ledger.identify(j, p, s), worker_id = for_worker,
      started_at = ledger.now(), progress_current = 0, progress_total = 0
    from public.jobs j, public.pipeline_steps p
    where s.id = any(picked.runs) and s.status = 'queued' and s.queue_job_id = any(picked.ids)
      and j.id = any(array[s.job_id]) and p.graph = j.graph and p.name = s.step
    returning array_position(picked.ids, s.queue_job_id) as nr, s.queue_job_id as id, s.job_id, s.tenant_id, s.step, s.item,
              s.attempt, p.stage, j.stage as left_stage, j.last_seq, j.status = 'queued' as first, jsonb_build_object(
                'status', case j.status when 'queued' then 'running' else j.status end, 'percent', j.percent) as standing,
              jsonb_build_object(
                'step_run', s.id, 'attempt', s.attempt, 'failures', s.failures, 'previous_error', s.error_code,
                'age_s', extract(epoch from ledger.now() - s.created_at),
                'job', j.id, 'tenant', j.tenant_id, 'pipeline', j.pipeline, 'step', s.step, 'item', s.item,
                'item_value', s.item_value, 'params', j.params,
                'document', case when p.takes && '{document,source}' then (
                  select jsonb_build_object('title', d.title, 'filename', d.filename, 'kind', d.kind,
                                            'blob', jsonb_build_object('sha256', d.sha256, 'bytes', d.bytes))
                  from public.documents d where d.id = j.document_id) end,
                'inputs', case when p.inputs = '{}' then '{}' else (
                  select coalesce(jsonb_object_agg(t.step, coalesce((
                    select coalesce((select jsonb_build_object('value', r.value, 'blob', r.blob)
                                     from public.step_results r where r.id = u.result_id), '{"value": null, "blob": null}')
                    from public.job_steps u where u.job_id = t.job_id and u.step = t.step
                      and (not t.mapped or t.step = any(p.along) and u.item = s.item)), '{"gather": true}')), '{}')
                  from public.job_step_totals t where t.job_id = j.id and t.step = any(p.inputs)) end,
                'mapped', exists (select from public.pipeline_steps m where m.graph = j.graph and m.map = s.step),
                'version', p.version, 'deploy', (select g.deploy from public.pipeline_graphs g where g.digest = j.graph),
                'reuse', case when not j.fresh then (
                  select jsonb_build_object('result', r.id, 'digest', r.digest, 'value', r.value, 'blob', r.blob,
                                              'skipped', r.skipped, 'text', r.description -> 'text')
                  from public.step_results r
                  where ledger.short_key(r.tenant_id, r.identity) = ledger.short_key(j.tenant_id, s.identity)
                    and r.tenant_id = j.tenant_id and r.identity = s.identity
                  order by r.id desc limit 1) end) as work
  ), told as (
    select b.*, b.last_seq + b.first::integer + row_number() over (partition by b.job_id order by b.nr) as seq,
           row_number() over (partition by b.job_id order by b.nr) = 1 as leads,
           row_number() over (partition by b.job_id order by b.nr desc) = 1 as ends,
           bool_or(b.item is null) over (partition by b.job_id) as alone
    from begun b
  ), moved as (
    update public.jobs j set
      status = case when t.first then 'running' else j.status end,
      started_at = case when t.first then coalesce(j.started_at, ledger.now()) else j.started_at end,
      stage = t.stage, progress_message = case when j.stage = t.stage then j.progress_message else '' end,
      progress_current = case when t.alone then 0 else j.progress_current end,
      progress_total = case when t.alone then 0 else j.progress_total end,
      last_seq = t.seq, updated_at = ledger.now()
    from told t where j.id = t.job_id and t.ends
  ), history as (
    insert into public.job_events (job_id, seq, tenant_id, at, kind, stage, step, item, attempt, message, data)
    select t.job_id, t.seq - 1, t.tenant_id, ledger.now(), 'started', t.left_stage, null, null, null,
           'A worker has picked it up.', t.standing
    from told t where t.first and t.leads
    union all
    select t.job_id, t.seq, t.tenant_id, ledger.now(), 'step_started', t.stage, t.step, t.item, t.attempt, '', t.standing
    from told t
  )
  select array_agg(t.id), array_agg(t.work), array_agg(t.job_id || ' ' || t.seq) filter (where t.ends)
  into ids, works, tidings from told t;
  perform pg_notify('ledgerline_events', t) from unnest(tidings) t;
  return row(coalesce(ids, '{}'), coalesce(works, '{}'));
end $$;

revoke all on all functions in schema ledger from anon, authenticated, public;
