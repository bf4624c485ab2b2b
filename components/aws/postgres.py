"""RDS: the metadata database's server, in two zones, encrypted, backed up to the second, and hard to delete by mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws import rds

from components.aws.common import AwsScope, CustomerKey, CustomerKeyArgs, Statement, allow, log_group, service_role
from components.aws.firewall import Firewall, FirewallArgs
from components.aws.network import NetworkRef
from topology.aws.model import DatabaseInstance
from topology.model import Postgres

ENGINE = "postgres"
#: The authority of the server's certificate; clients check it against RDS's bundle.
AUTHORITY = "rds-ca-rsa2048-g1"
LOGS = ("postgresql", "upgrade")
LOG_PATH = "/aws/rds/instance/{identifier}/{log}"
LOG_DAYS = 30
#: Seconds between two looks at the operating system (Enhanced Monitoring).
MONITORING_SECONDS = 60
#: A statement that takes longer, in milliseconds, is in the log.
SLOW_STATEMENT_MS = 2000


def parameters(postgres: Postgres) -> dict[str, str]:
    """The parameter group's values, by name."""
    return {
        "rds.force_ssl": "1",
        "rds.accepted_password_auth_method": "scram",
        "password_encryption": "scram-sha-256",
        "max_connections": str(postgres.max_connections),
        "log_min_duration_statement": str(SLOW_STATEMENT_MS),
        # A transaction that was forgotten keeps its locks no longer than this.
        "idle_in_transaction_session_timeout": "600000",
    }


#: What takes effect only by a restart.
STATIC_PARAMETERS = frozenset({"max_connections"})


@dataclass(frozen=True)
class RdsArgs:
    """What the database instance needs."""

    scope: AwsScope
    instance: DatabaseInstance
    postgres: Postgres
    network: NetworkRef
    #: Security groups that may connect, by what they are of.
    clients: Mapping[str, pulumi.Input[str]]
    #: Password of the role that owns the metadata database; None: RDS makes one, keeps it in Secrets Manager and changes it.
    password: pulumi.Input[str] | None
    logs_key_arn: pulumi.Input[str]


class Rds(pulumi.ComponentResource):
    """An RDS instance of PostgreSQL with a standby in another zone, point-in-time recovery, and TLS required.

    The metadata database's role is the instance's master user: more than it needs, but RDS makes no other by itself.
    """

    #: Where the server is; its certificate is of this name.
    host: pulumi.Output[str]
    #: The instance's identifier.
    identifier: pulumi.Output[str]
    #: ARN of the secret with the master user's password; None where the stack made the password.
    secret_arn: pulumi.Output[str] | None
    #: What a role must be allowed that reads the password.
    statements: tuple[Statement, ...]

    def __init__(self, name: str, args: RdsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/postgres:Rds", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        wanted, postgres = args.instance, args.postgres
        key = CustomerKey(name, CustomerKeyArgs(args.scope, "The metadata database"), child)
        firewall = Firewall(name, FirewallArgs(args.network.vpc_id, name, postgres.port, groups=args.clients), child)
        subnet_group = rds.SubnetGroup(
            name,
            description="Where the metadata database is",
            subnet_ids=list(args.network.subnet_ids),
            tags={"Name": name},
            opts=child,
        )
        parameter_group = rds.ParameterGroup(
            name,
            family=wanted.family,
            description="How the metadata database runs",
            parameters=[
                rds.ParameterGroupParameterArgs(
                    name=parameter,
                    value=value,
                    apply_method="pending-reboot" if parameter in STATIC_PARAMETERS else "immediate",
                )
                for parameter, value in parameters(postgres).items()
            ],
            tags={"Name": name},
            opts=child,
        )
        monitoring = service_role(
            f"{name}-monitoring",
            "monitoring.rds.amazonaws.com",
            "Writes what RDS sees of the operating system",
            child,
            managed_policies=[args.scope.managed_policy("service-role/AmazonRDSEnhancedMonitoringRole")],
            condition={"StringEquals": {"aws:SourceAccount": args.scope.account}},
        )
        # RDS writes to groups of these names, and would make some that keep events for ever.
        logs = [
            log_group(
                f"{name}-{log}",
                LOG_PATH.format(identifier=wanted.identifier, log=log),
                LOG_DAYS,
                args.logs_key_arn,
                child,
            )
            for log in LOGS
        ]
        instance = rds.Instance(
            name,
            identifier=wanted.identifier,
            engine=ENGINE,
            engine_version=wanted.engine_version,
            instance_class=wanted.instance_class,
            allocated_storage=wanted.storage_gib,
            max_allocated_storage=wanted.max_storage_gib,
            storage_type="gp3",
            storage_encrypted=True,
            kms_key_id=key.arn,
            db_name=postgres.database,
            username=postgres.user,
            password=None if args.password is None else pulumi.Output.secret(args.password),
            manage_master_user_password=True if args.password is None else None,
            master_user_secret_kms_key_id=key.arn if args.password is None else None,
            port=postgres.port,
            multi_az=wanted.multi_az,
            publicly_accessible=False,
            db_subnet_group_name=subnet_group.name,
            vpc_security_group_ids=[firewall.group_id],
            parameter_group_name=parameter_group.name,
            ca_cert_identifier=AUTHORITY,
            backup_retention_period=wanted.backup_days,
            backup_window=wanted.backup_window,
            maintenance_window=wanted.maintenance_window,
            copy_tags_to_snapshot=True,
            delete_automated_backups=False,
            deletion_protection=wanted.deletion_protection,
            skip_final_snapshot=False,
            final_snapshot_identifier=f"{wanted.identifier}-last",
            auto_minor_version_upgrade=True,
            allow_major_version_upgrade=False,
            # A change that restarts the server waits for the maintenance window.
            apply_immediately=False,
            database_insights_mode=wanted.insights_mode,
            performance_insights_enabled=True,
            performance_insights_kms_key_id=key.arn,
            performance_insights_retention_period=wanted.insights_days,
            monitoring_interval=MONITORING_SECONDS,
            monitoring_role_arn=monitoring.arn,
            enabled_cloudwatch_logs_exports=list(LOGS),
            tags={"Name": name},
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(protect=True, depends_on=logs)),
        )
        self.host = instance.address
        self.identifier = instance.identifier
        self.secret_arn = None if args.password is not None else instance.master_user_secrets.apply(_arn)
        self.statements = (
            ()
            if self.secret_arn is None
            else (
                {"Sid": "Password", **allow(["secretsmanager:GetSecretValue"], [self.secret_arn])},
                {
                    "Sid": "PasswordKey",
                    **allow(
                        ["kms:Decrypt"],
                        [key.arn],
                        Condition={"StringEquals": {"kms:ViaService": f"secretsmanager.{args.scope.region}.amazonaws.com"}},
                    ),
                },
            )
        )
        self.register_outputs({"host": self.host})


def _arn(secrets: Sequence[rds.outputs.InstanceMasterUserSecret] | None) -> str:
    """The ARN of the one secret that RDS makes for an instance; empty for none, as while it is being made."""
    return (secrets[0].secret_arn if secrets else None) or ""
