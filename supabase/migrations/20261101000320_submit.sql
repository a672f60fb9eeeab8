-- Submitting: the job, its first step runs, their queue jobs and its first event, in one transaction or none.

-- Make a job, its first step runs, their queue jobs and its first event; or find the job this request already made.
-- Returns {"job": id, "created": bool}. Refuses with a code when the request cannot be a job.
create function ledger.submit(
  job_id uuid, for_tenant uuid, by_user uuid, of_pipeline text, of_graph text, for_document uuid, with_params jsonb,
  idempotency text default null, run_fresh boolean default false, deadline_s double precision default null
) returns jsonb language plpgsql as $$
declare
  job public.jobs;
  born public.jobs;
  graph public.pipeline_graphs;
  step public.pipeline_steps;
  natural_like text;
  payload text := encode(sha256(convert_to(concat_ws(chr(31), of_pipeline, coalesce(for_document::text, ''),
                         with_params::text, run_fresh), 'UTF8')), 'hex');
begin
  graph := ledger.check_submission(for_tenant, of_pipeline, of_graph, for_document);
  -- A fresh run answers for its like only while it lasts.
  natural_like := payload || ':' || case when run_fresh then 'fresh' else graph.version::text end;
  insert into public.jobs (id, tenant_id, created_by, pipeline, graph, document_id, params, fresh, total_weight,
                           idempotency_key, natural_key, payload_digest, deadline_at, last_seq, created_at, updated_at)
  values (job_id, for_tenant, by_user, of_pipeline, graph.digest, for_document, with_params, run_fresh,
          graph.total_weight, idempotency,
          case when idempotency is null then natural_like end, payload,
          ledger.now() + make_interval(secs => deadline_s), 1, ledger.now(), ledger.now())
  on conflict do nothing
  returning * into job;
  if job.id is null then
    return ledger.find_submitted(for_tenant, idempotency, natural_like, payload);
  end if;
  born := job;
  job.last_seq := 0;
  job := ledger.note(job, 'submitted', 'Waiting for a worker.', jsonb_build_object('pipeline', of_pipeline),
                     actor => by_user);
  for step in select p.* from public.pipeline_steps p where p.graph = job.graph and p.after = '{}' order by p.position loop
    job := ledger.open_step(job, step);
  end loop;
  if job is distinct from born then
    perform ledger.save(job);
  else
    perform ledger.tell(job);  -- as it was inserted: one update less
  end if;
  return jsonb_build_object('job', job.id, 'created', true);
end $$;

-- The graph a submission will run, or a refusal.
create function ledger.check_submission(for_tenant uuid, of_pipeline text, of_graph text, for_document uuid)
returns public.pipeline_graphs language plpgsql as $$
declare
  graph public.pipeline_graphs;
  kind text;
begin
  select g.* into graph from public.pipelines p join public.pipeline_graphs g on g.digest = p.graph
  where p.name = of_pipeline and p.retired_at is null;
  if graph.digest is null then
    perform ledger.refuse(422, 'unknown_pipeline', 'There is no pipeline of that name.',
                          jsonb_build_object('pipeline', of_pipeline));
  elsif of_graph is not null and graph.digest <> of_graph then
    perform ledger.refuse(409, 'pipeline_changed', 'The pipeline was changed a moment ago. Please send the request again.');
  end if;
  if for_document is not null then
    select d.kind into kind from public.documents d where d.id = for_document and d.tenant_id = for_tenant;
    if kind is null then
      perform ledger.refuse(404, 'document_not_found', 'There is no such document.');
    elsif kind <> all(graph.accepts) then
      perform ledger.refuse(422, 'document_not_accepted',
        format('The pipeline %s does not take %s files.', of_pipeline, upper(kind)),
        jsonb_build_object('kind', kind, 'accepts', graph.accepts));
    end if;
    perform ledger.refuse_quarantined(for_document, of_pipeline);
  elsif exists (select from public.pipeline_steps p where p.graph = graph.digest and p.takes && '{document,source}') then
    perform ledger.refuse(422, 'document_required', format('The pipeline %s needs a document.', of_pipeline));
  end if;
  return graph;
end $$;

-- A document whose last job killed its workers is not given to more of them until a person retries that job.
create function ledger.refuse_quarantined(for_document uuid, of_pipeline text) returns void
language plpgsql as $$
declare
  last public.jobs;
begin
  select j.* into last from public.jobs j where j.document_id = for_document and j.pipeline = of_pipeline
  order by j.id desc limit 1;
  if last.error_code = 'worker_lost' then
    perform ledger.refuse(409, 'document_quarantined', format(
      'Job %s with this document stopped its workers several times. Retry that job if you think it can work now.', last.id),
      jsonb_build_object('job_id', last.id));
  end if;
end $$;

-- The job that an equal request made before; a refusal when the key was used for something else.
create function ledger.find_submitted(for_tenant uuid, key text, natural_like text, payload text)
returns jsonb language plpgsql as $$
declare
  job public.jobs;
begin
  if key is null then
    select j.* into job from public.jobs j where j.tenant_id = for_tenant and j.natural_key = natural_like
      and j.status in ('queued', 'running', 'awaiting_review', 'completed');
  else
    select j.* into job from public.jobs j where j.tenant_id = for_tenant and j.idempotency_key = key;
  end if;
  if job.id is null then
    -- It ended between our insert and this look: the sender may simply try again.
    perform ledger.refuse(409, 'try_again', 'An equal job ended at this very moment. Please send the request again.');
  elsif job.payload_digest <> payload then
    perform ledger.refuse(422, 'idempotency_key_reused',
      format('This Idempotency-Key was already used for another request, which made job %s.', job.id),
      jsonb_build_object('job_id', job.id));
  end if;
  return jsonb_build_object('job', job.id, 'created', false);
end $$;
