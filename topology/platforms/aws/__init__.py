"""The `aws` platform: workloads as on Kubernetes, on EKS; Redis is ElastiCache, PostgreSQL is RDS, results are in S3.

Hosts of ElastiCache and RDS are known only once they are made: until then a server's host is its name.
"""

from __future__ import annotations

from dataclasses import replace

from topology import egress
from topology.platforms.aws import account, decisions, network, stores, times
from topology.platforms.kubernetes import (
    KUBERNETES,
    configuration_fits,
    names_are_resolved,
    namespace_is_the_stacks_own,
    no_sample_database,
    stack_is_a_label,
)

#: Where the image has the authorities of RDS's certificates (`runtime/environment`).
RDS_CA_FILE = "/app/runtime/environment/rds-ca-rsa2048-g1.pem"

AWS = replace(
    KUBERNETES,
    redis_speaks_tls=True,
    postgres_ca_file=RDS_CA_FILE,
    complete=decisions.complete,
    rules=(
        names_are_resolved,
        configuration_fits,
        namespace_is_the_stacks_own,
        stack_is_a_label,
        no_sample_database,
        egress.peers_are_known,
        egress.nodes_stay_closed,
        account.values_exist,
        account.names_fit,
        account.account_is_given,
        network.network_is_complete,
        network.cluster_is_complete,
        stores.redis_fits,
        stores.postgres_fits,
        account.way_in_is_aws_own,
        times.windows_fit,
        times.logs_are_kept_as_long_as_there_is,
        stores.names_are_free,
        network.api_server_is_not_the_worlds,
    ),
)
