-- Requests: what people and releases do with jobs, documents and pipelines.

-- Stop a job. Returns its status before. Refuses when it is already over, or not this tenant's.
create function ledger.cancel(job_id uuid, of_tenant uuid, by_user uuid, reason text default '') returns text
language plpgsql as $$
declare
  job public.jobs := ledger.lock_job(job_id);
  before text := job.status;
begin
  if job.id is null or job.tenant_id <> of_tenant then
    perform ledger.refuse(404, 'job_not_found', 'There is no such job.');
  elsif job.status in ('completed', 'failed', 'cancelled') then
    perform ledger.refuse(409, 'job_is_over', format('This job is already %s.', job.status),
                          jsonb_build_object('status', job.status));
  end if;
  perform ledger.stop_step_runs(job.id);
  job.status := 'cancelled';
  job.finished_at := ledger.now();
  job := ledger.note(job, 'cancelled', coalesce(nullif(reason, ''), 'Cancelled on request.'), actor => by_user);
  perform ledger.save(job);
  return before;
end $$;

-- Reopen a failed job where it failed. Done steps stay done. Refuses when the job did not fail.
create function ledger.retry(job_id uuid, of_tenant uuid, by_user uuid) returns void
language plpgsql as $$
declare
  job public.jobs := ledger.lock_job(job_id);
begin
  if job.id is null or job.tenant_id <> of_tenant then
    perform ledger.refuse(404, 'job_not_found', 'There is no such job.');
  elsif job.status <> 'failed' then
    perform ledger.refuse(409, 'job_did_not_fail', format('Only a failed job can be retried; this one is %s.', job.status),
                          jsonb_build_object('status', job.status));
  end if;
  job.status := 'queued';
  job.error_code := null;
  job.error_message := null;
  job.finished_at := null;
  job := ledger.note(job, 'reopened', 'Trying again from where it failed.', actor => by_user);
  perform ledger.save(job);
  job := ledger.reopen_all(job);
  perform ledger.save(job);
exception when unique_violation then
  perform ledger.refuse(409, 'newer_job_exists', 'An equal job was started after this one failed; follow that one.');
end $$;

-- Make the step runs of unfinished steps ready to be opened again. A deadline that passed has done its work.
create function ledger.reset_unfinished(inout job public.jobs) language plpgsql as $$
begin
  update public.jobs j set deadline_at = null where j.id = job.id;
  update public.job_steps s set
    status = 'pending', failures = 0, losses = 0, finished_at = null, error_code = null, error_message = null
  from public.job_step_totals t
  where s.job_id = job.id and s.status in ('failed', 'cancelled') and t.job_id = s.job_id and t.step = s.step
    and t.finished_at is null;
  job.done_weight := job.done_weight - coalesce((
    select sum(p.weight * t.failed / t.total) from public.job_step_totals t
    join public.pipeline_steps p on p.graph = job.graph and p.name = t.step
    where t.job_id = job.id and t.finished_at is null and t.total > 0), 0);
  update public.job_step_totals t set failed = 0 where t.job_id = job.id and t.finished_at is null and t.failed > 0;
end $$;

-- Record an uploaded document.
create function ledger.add_document(
  document_id uuid, of_tenant uuid, by_user uuid, title text, filename text, kind text, media_type text,
  bytes bigint, sha256 text
) returns public.documents language sql volatile as $$
  insert into public.documents (id, tenant_id, uploaded_by, title, filename, kind, media_type, bytes, sha256)
  values (document_id, of_tenant, by_user, title, filename, kind, media_type, bytes, sha256)
  returning *
$$;

-- Publish a pipeline's graph and make it the current one of its name.
create function ledger.publish(graph jsonb, graph_digest text, by_deploy text) returns void
language plpgsql as $$
begin
  insert into public.pipeline_graphs (digest, name, version, title, accepts, params_schema, total_weight, deploy)
  values (graph_digest, graph ->> 'name', (graph ->> 'version')::integer, graph ->> 'title',
          array(select jsonb_array_elements_text(graph -> 'accepts')), graph -> 'params_schema',
          (select sum((s ->> 'weight')::double precision) from jsonb_array_elements(graph -> 'steps') s), by_deploy)
  on conflict (digest) do nothing;
  insert into public.pipeline_steps (graph, name, position, stage, queue, version, after, map, inputs, takes, along, gate,
                                     expires_s, allow_failures, attempts, timeout_s, weight)
  select graph_digest, s ->> 'name', nr, s ->> 'stage', s ->> 'queue', (s ->> 'version')::integer,
         array(select jsonb_array_elements_text(s -> 'after')), s ->> 'map',
         array(select jsonb_array_elements_text(s -> 'inputs')), array(select jsonb_array_elements_text(s -> 'takes')),
         array(select jsonb_array_elements_text(s -> 'along')), (s ->> 'gate')::boolean,
         (s ->> 'expires_s')::double precision, (s ->> 'allow_failures')::integer,
         (s ->> 'attempts')::integer, (s ->> 'timeout_s')::double precision, (s ->> 'weight')::double precision
  from jsonb_array_elements(graph -> 'steps') with ordinality x(s, nr)
  on conflict do nothing;
  insert into ops.job_sizes (graph, queue, runs)
  select p.graph, p.queue, count(*) from public.pipeline_steps p where p.graph = graph_digest group by p.graph, p.queue
  on conflict do nothing;
  insert into public.pipelines (name, graph) values (graph ->> 'name', graph_digest)
  on conflict (name) do update set graph = excluded.graph, retired_at = null;
end $$;

-- Retire the pipelines that this release no longer has. Their jobs in flight keep their graphs.
create function ledger.retire_pipelines(kept text[]) returns void language sql volatile as $$
  update public.pipelines p set retired_at = ledger.now() where p.name <> all(kept) and p.retired_at is null
$$;
