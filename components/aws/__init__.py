"""The topology's parts that AWS runs: network, cluster, ElastiCache, RDS, S3, the registry, alarms."""
