-- BARRED: name the queues from which a worker takes nothing, as its host is in quarantine. Writes nothing.
-- ARGV  instance
-- Reply the queues
return barred_queues(ARGV[1])
