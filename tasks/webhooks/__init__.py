"""Webhooks: endpoints of tenants that are told what becomes of their jobs.

addresses   where a webhook may lead, and where not
registry    what owners do: register, change, rotate, ping, retry
post        one attempt at one delivery
courier     the loop of the workers that sends what is due
"""
