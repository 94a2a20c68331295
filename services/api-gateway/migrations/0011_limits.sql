-- Volumes have limits. Those that were made before have none, and say so, so that they are found by it.
UPDATE volumes SET body = '{"limits":{"iops":0,"mb_per_second":0},"limits_pending":false,' || substr(body, 2) WHERE body LIKE '{"%';
