-- What `supabase db reset` puts into a local database after the migrations: a tenant to try things in.
-- Members are added when someone has signed up: insert into members values ('<tenant>', '<auth.users.id>', 'owner').
insert into public.tenants (id, name)
values ('00000000-0000-7000-8000-000000000001', 'Try-out')
on conflict (id) do nothing;
