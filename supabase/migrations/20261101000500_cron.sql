-- Where the database has pg_cron, it sweeps too: then dead workers are noticed even when no worker is left. Databases
-- without it (the embedded one, plain Debian) are swept by the workers alone.
do $$
begin
  if exists (select from pg_extension where extname = 'pg_cron') then
    perform cron.schedule('ledgerline-sweep', '* * * * *', 'select ledger.reconcile_as_released()');
  end if;
end $$;
