-- Batches: how they come in, how workers take them in, and how they are looked at.

-- name: batches_open
-- Begin a batch; its items follow in the same transaction.
select ledger.open_batch(%(id)s, %(tenant_id)s, %(user_id)s, %(pipeline)s)

-- name: batches_copy
-- Its items, as they come.
copy public.batch_items (batch_id, nr, tenant_id, key, document_id, path, title, params, outcome, code, message)
from stdin

-- name: batches_close
-- All its items are there.
select ledger.close_batch(%(id)s, %(items)s, %(key)s, %(digest)s)

-- name: batches_find
-- The batch that an equal request made before.
select ledger.find_batch(%(tenant_id)s, %(key)s, %(digest)s) as id

-- name: batches_cancel
-- Stop a batch.
select ledger.cancel_batch(%(id)s, %(tenant_id)s, %(user_id)s, %(reason)s)

-- name: batches_retry
-- Reopen the failed jobs of a batch.
select ledger.retry_batch(%(id)s, %(tenant_id)s, %(user_id)s)

-- name: batches_take_in
-- One chunk of the batch whose turn it is.
select batch, claimed, next_in from ledger.take_in(%(worker)s, %(lease_s)s, %(most)s, %(most_paths)s)

-- name: batches_admit_path
-- What lay at the path of an item is stored; gives the item's outcome.
select ledger.admit_path(%(batch)s, %(nr)s, %(document)s) as outcome

-- name: batches_refuse_item
-- What lies at the path of an item is of no use.
select ledger.refuse_item(%(batch)s, %(nr)s, %(code)s, %(message)s)

-- name: batches_put_off
-- Leave a batch alone for a while.
select ledger.put_off_batch(%(batch)s, %(for_s)s)

-- name: api_batches
-- A page of a tenant's batches, newest first.
select b.id, b.pipeline, b.items, b.created_by, b.created_at, b.cancelled_at
from public.batches b
where b.tenant_id = %(tenant_id)s and (%(before)s::uuid is null or b.id < %(before)s::uuid)
order by b.id desc limit %(most)s

-- name: api_batch
-- One batch, its items counted by outcome and its jobs by status. `done`: percent of all its jobs, added up.
select b.id, b.pipeline, b.items, b.created_by, b.created_at, b.cancelled_at, b.due_at is not null as moving,
  outcomes.counted as outcomes, jobs.counted as jobs, jobs.done
from public.batches b
cross join lateral (
  select coalesce(jsonb_object_agg(o.outcome, o.number), '{}') as counted
  from (select i.outcome, count(*) as number from public.batch_items i where i.batch_id = b.id group by i.outcome) o
) outcomes
cross join lateral (
  select coalesce(jsonb_object_agg(s.status, s.number), '{}') as counted, coalesce(sum(s.done), 0)::bigint as done
  from (select j.status, count(*) as number,
          sum(case when j.finished_at is null then j.percent else 100 end) as done
        from public.jobs j where j.batch_id = b.id group by j.status) s
) jobs
where b.id = %(batch_id)s and b.tenant_id = %(tenant_id)s

-- name: api_batch_items
-- A page of a batch's items in the order of their lines, all or those of one outcome; a row without a number when there
-- are none.
select b.id as batch_id, i.nr, i.key, i.document_id, i.path, i.title, i.outcome, i.code, i.message, i.job_id
from public.batches b
left join lateral (
  (select * from public.batch_items a
   where %(outcome)s::text is null and a.batch_id = b.id and a.nr > %(after)s order by a.nr limit %(most)s)
  union all
  (select * from public.batch_items a
   where a.outcome = %(outcome)s::text and a.batch_id = b.id and a.nr > %(after)s order by a.nr limit %(most)s)
) i on true
where b.id = %(batch_id)s and b.tenant_id = %(tenant_id)s
order by i.nr
