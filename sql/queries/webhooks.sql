-- Webhooks: what owners ask of the ledger and see, and what workers do with deliveries.

-- name: webhook_add
-- Register an endpoint.
select * from ledger.add_webhook(%(id)s, %(tenant_id)s, %(user_id)s, %(url)s, %(kinds)s, %(secret)s, %(most)s)

-- name: webhook_change
-- Change what is given of a webhook.
select * from ledger.change_webhook(%(webhook_id)s, %(tenant_id)s, %(url)s, %(kinds)s, %(enabled)s)

-- name: webhook_remove
-- Forget a webhook and its deliveries.
select ledger.remove_webhook(%(webhook_id)s, %(tenant_id)s)

-- name: webhook_rotate
-- Sign with a new secret; gives until when the one before signs too.
select ledger.rotate_secret(%(webhook_id)s, %(tenant_id)s, %(secret)s, %(overlap_s)s) as previous_until

-- name: webhook_ping
-- Send something that tells of nothing.
select * from ledger.ping_webhook(%(webhook_id)s, %(tenant_id)s)

-- name: webhook_retry
-- Have a delivery tried again.
select * from ledger.retry_delivery(%(delivery_id)s, %(webhook_id)s, %(tenant_id)s)

-- name: webhook_claim
-- Take deliveries that are due.
select * from ledger.claim_deliveries(%(most)s, %(each)s, %(busy)s, %(lease_s)s)

-- name: webhook_settle
-- Report an attempt at a delivery; gives whether its webhook was disabled, null when the attempt is stale.
select ledger.settle_delivery(%(id)s, %(attempt)s, %(status)s, %(code)s, %(message)s, %(retry_in)s, %(gone)s,
  %(patience_s)s) as disabled

-- name: webhook_prune
-- Forget deliveries that ended long ago.
select ledger.prune_deliveries(make_interval(days => %(days)s)) as pruned

-- name: api_webhooks
-- A page of a tenant's webhooks, newest first. As the caller.
select w.* from public.webhooks w
where w.tenant_id = %(tenant_id)s and (%(before)s::uuid is null or w.id < %(before)s::uuid)
order by w.id desc limit %(most)s

-- name: api_webhook
-- One webhook. As the caller.
select w.* from public.webhooks w where w.id = %(webhook_id)s and w.tenant_id = %(tenant_id)s

-- name: api_deliveries
-- A page of a webhook's deliveries, newest first; a row without an id when there are none. As the caller.
select w.id as of_webhook, d.* from public.webhooks w
left join lateral (
  select * from public.webhook_deliveries v
  where v.webhook_id = w.id
    and (%(before)s::uuid is null or v.id < %(before)s::uuid)
    and (%(status)s::text is null or v.status = %(status)s::text)
  order by v.id desc limit %(most)s) d on true
where w.id = %(webhook_id)s and w.tenant_id = %(tenant_id)s
order by d.id desc
