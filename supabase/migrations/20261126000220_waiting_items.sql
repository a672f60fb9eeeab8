-- The head of a batch is found by an index of what waits, however much of it is over and whatever a plan was made for: a
-- plan that was made while there was little would later walk over all that is done.

create index batch_items_waiting on public.batch_items (batch_id, nr) where outcome = 'waiting';
alter function ledger.take_in(uuid, double precision, integer, integer) set enable_seqscan = off;
