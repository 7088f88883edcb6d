-- A tenant that is erased goes out of the rollouts of others too.

GRANT UPDATE (canaries, canary_names) ON settings.rollout TO {{service}};
