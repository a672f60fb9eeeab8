-- name: line_listen
-- Hear when something is put into a queue.
listen {}

-- name: line_prepare
-- Take queue jobs; for step runs this begins the attempt. Asked by its name.
prepare claim (text[], uuid, bigint, integer) as select * from ledger.claim($1, $2, $3, $4)

-- name: engine_settle
-- End attempts, many in one transaction: each completes, fails, or is given back. Where there is room, begin what follows.
select ledger.settle(array(select jsonb_array_elements(%(outcomes)s)), %(worker)s) as answers

-- name: engine_progress
-- Say how far a running attempt is.
select ledger.report_progress(%(step_run)s, %(attempt)s, %(current)s, %(total)s, %(message)s) as accepted

-- name: engine_gather
-- The results of a mapped step, in item order.
select value, blob from ledger.gather(%(job)s, %(step)s)

-- name: engine_trace
-- What a span of an attempt is told beside the work; asked when traces are sent.
select j.trace, extract(epoch from s.started_at - s.queued_at)::float8 as waited_s
from public.job_steps s join public.jobs j on j.id = s.job_id where s.id = %(step_run)s

-- name: engine_beat
-- Show that the worker is alive; gives the step runs that are no longer its own.
select ledger.beat(%(worker)s, %(host)s, %(pid)s, %(deploy)s, %(queues)s, %(took_from)s, %(held)s, %(stopping)s,
  %(took)s) as revoked

-- name: engine_sign_off
-- Forget a worker that ended in good order.
select ledger.sign_off(%(worker)s)

-- name: engine_promote_due
-- Queue the step runs whose retry is due.
select promoted, next_in from ledger.promote_due(%(most)s)

-- name: engine_recover_lost
-- Take back what dead workers held, and end what has run out of time.
select ledger.recover_lost(%(lease_s)s, %(max_losses)s) + ledger.expire_gates() + ledger.expire_jobs() as repairs

-- name: engine_count_attempts
-- Add what this worker counted.
select ledger.count_attempts(%(told)s) as kinds

-- name: engine_prune_results
-- Forget results that no job refers to and nobody used for days.
select ledger.prune_results(make_interval(days => %(days)s)) as pruned

-- name: engine_take_turn
-- Whether it is this worker's turn to run a chore.
select ledger.take_turn(%(chore)s, %(worker)s, %(interval_s)s) as mine

-- name: engine_sign_chore
-- Remember that a chore ran.
select ledger.sign_chore(%(chore)s, %(worker)s, %(repairs)s)

-- name: queue_search_path
-- Procrastinate's own statements are unqualified: its connections look into its schema first.
select set_config('search_path', 'procrastinate, public', false)
