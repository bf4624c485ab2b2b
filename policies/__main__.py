"""What `pulumi preview --policy-pack policies` runs. The pack's constructor serves until the engine is done, so it is here."""

from pulumi_policy import PolicyPack

from policies.pack import NAME, policies

PolicyPack(NAME, policies())
