-- name: act_as_user
-- Become the caller for the rest of the transaction, the way PostgREST does it.
select set_config('role', 'authenticated', true), set_config('request.jwt.claims', %(claims)s, true)
