//! Who may call what: one rule for each method of the public contract, and the one place where it is applied.
//!
//! The rules say which role is the least that may call a method. What else a call may depend on (an image made public, a key above the
//! caller's own) is said by the service itself, after this. A caller never reaches into another project: that a key has no part in a
//! project, or a resource is another project's, is NOT_FOUND, and comes after this too.

use crate::{
    CoreError, Kind,
    model::{Caller, Role},
};

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody: it says nothing of the cloud's contents.
    Public,
    /// Whoever holds the token in the path, which a member of the project was given.
    Ticket,
    /// Keys of this role and above.
    Key(Role),
}

impl Access {
    /// Whether a key of this role may call.
    #[must_use]
    pub fn allows(self, role: Role) -> bool {
        match self {
            Self::Public | Self::Ticket => true,
            Self::Key(least) => role >= least,
        }
    }
}

/// The rule of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The method, such as `cloud.v1.InstanceService/GetInstance`.
    pub method: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What it changes, and the action that events call it by. None: it only reads.
    pub changes: Option<(Kind, &'static str)>,
}

/// Applies a rule to a caller.
///
/// # Errors
/// Denied.
pub fn authorize(rule: &Rule, caller: &Caller) -> Result<(), CoreError> {
    if rule.access.allows(caller.role) {
        return Ok(());
    }
    let Access::Key(least) = rule.access else { return Ok(()) };
    let name = rule.method.rsplit('/').next().unwrap_or(rule.method);
    let (has, needs) = (caller.role.as_str(), least.as_str());
    Err(CoreError::Denied(format!("{name} needs the role {needs}: the key `{}` has the role {has}", caller.key_name)))
}

/// The rule of a method; none where there is no such method.
#[must_use]
pub fn rule(method: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.method == method)
}

const fn read(method: &'static str, least: Role) -> Rule {
    Rule { method, access: Access::Key(least), changes: None }
}

const fn change(method: &'static str, least: Role, kind: Kind, action: &'static str) -> Rule {
    Rule { method, access: Access::Key(least), changes: Some((kind, action)) }
}

/// The routes of the public port that are in no contract, and who may use them.
pub const ROUTES: &[(&str, Access)] = &[
    ("/console/{token}", Access::Ticket),
    ("/console/{token}/ws", Access::Ticket),
    ("/health/live", Access::Public),
    ("/health/ready", Access::Public),
    ("/images:upload", Access::Key(Role::Member)),
    // Processes of this machine need no key.
    ("/metrics", Access::Key(Role::Operator)),
    ("/openapi.json", Access::Public),
];

/// Every method of the public contract. A test sees that none is missing.
pub const RULES: &[Rule] = &[
    change("cloud.v1.AdminService/BackupDatabase", Role::Operator, Kind::Database, "database.backup"),
    change("cloud.v1.AdminService/RestoreDatabase", Role::Operator, Kind::Database, "database.restore"),
    read("cloud.v1.EventService/ListEvents", Role::Viewer),
    read("cloud.v1.EventService/WatchEvents", Role::Viewer),
    read("cloud.v1.HostService/GetHost", Role::Operator),
    read("cloud.v1.HostService/ListHosts", Role::Operator),
    read("cloud.v1.HostService/WatchHosts", Role::Operator),
    change("cloud.v1.HostService/CreateJoinToken", Role::Operator, Kind::JoinToken, "join-token.create"),
    read("cloud.v1.HostService/ListJoinTokens", Role::Operator),
    change("cloud.v1.HostService/RevokeJoinToken", Role::Operator, Kind::JoinToken, "join-token.revoke"),
    change("cloud.v1.HostService/UpdateHost", Role::Operator, Kind::Host, "host.update"),
    read("cloud.v1.HostService/ListAuthorities", Role::Operator),
    change("cloud.v1.HostService/RotateAuthority", Role::Operator, Kind::Authority, "authority.rotate"),
    change("cloud.v1.HostService/CordonHost", Role::Operator, Kind::Host, "host.cordon"),
    change("cloud.v1.HostService/UncordonHost", Role::Operator, Kind::Host, "host.uncordon"),
    change("cloud.v1.HostService/DrainHost", Role::Operator, Kind::Host, "host.drain"),
    change("cloud.v1.HostService/FenceHost", Role::Operator, Kind::Host, "host.fence"),
    change("cloud.v1.HostService/RemoveHost", Role::Operator, Kind::Host, "host.remove"),
    read("cloud.v1.HostService/ListOrphans", Role::Operator),
    change("cloud.v1.HostService/AdoptOrphan", Role::Operator, Kind::Host, "host.orphan-adopt"),
    change("cloud.v1.HostService/RemoveOrphan", Role::Operator, Kind::Host, "host.orphan-remove"),
    change("cloud.v1.ProjectService/CreateProject", Role::Operator, Kind::Project, "project.create"),
    read("cloud.v1.ProjectService/GetProject", Role::Viewer),
    read("cloud.v1.ProjectService/ListProjects", Role::Viewer),
    read("cloud.v1.ProjectService/WatchProjects", Role::Viewer),
    change("cloud.v1.ProjectService/DeleteProject", Role::Operator, Kind::Project, "project.delete"),
    change("cloud.v1.ApiKeyService/CreateApiKey", Role::Admin, Kind::ApiKey, "api-key.create"),
    read("cloud.v1.ApiKeyService/GetApiKey", Role::Admin),
    read("cloud.v1.ApiKeyService/ListApiKeys", Role::Admin),
    read("cloud.v1.ApiKeyService/WatchApiKeys", Role::Admin),
    change("cloud.v1.ApiKeyService/RevokeApiKey", Role::Admin, Kind::ApiKey, "api-key.revoke"),
    change("cloud.v1.ApiKeyService/RotateApiKey", Role::Admin, Kind::ApiKey, "api-key.rotate"),
    read("cloud.v1.QuotaService/GetQuota", Role::Viewer),
    change("cloud.v1.QuotaService/UpdateQuota", Role::Operator, Kind::Quota, "quota.update"),
    change("cloud.v1.ImageService/ImportImage", Role::Member, Kind::Image, "image.import"),
    change("cloud.v1.ImageService/UploadImage", Role::Member, Kind::Image, "image.upload"),
    read("cloud.v1.ImageService/GetImage", Role::Viewer),
    read("cloud.v1.ImageService/ListImages", Role::Viewer),
    read("cloud.v1.ImageService/WatchImages", Role::Viewer),
    change("cloud.v1.ImageService/UpdateImage", Role::Member, Kind::Image, "image.update"),
    change("cloud.v1.ImageService/DeleteImage", Role::Member, Kind::Image, "image.delete"),
    read("cloud.v1.InstanceTypeService/GetInstanceType", Role::Viewer),
    read("cloud.v1.InstanceTypeService/ListInstanceTypes", Role::Viewer),
    read("cloud.v1.InstanceTypeService/WatchInstanceTypes", Role::Viewer),
    change(
        "cloud.v1.InstanceTypeService/CreateInstanceType",
        Role::Operator,
        Kind::InstanceType,
        "instance-type.create",
    ),
    change(
        "cloud.v1.InstanceTypeService/DeleteInstanceType",
        Role::Operator,
        Kind::InstanceType,
        "instance-type.delete",
    ),
    change("cloud.v1.InstanceService/LaunchInstance", Role::Member, Kind::Instance, "instance.launch"),
    read("cloud.v1.InstanceService/GetInstance", Role::Viewer),
    read("cloud.v1.InstanceService/ListInstances", Role::Viewer),
    read("cloud.v1.InstanceService/WatchInstances", Role::Viewer),
    change("cloud.v1.InstanceService/UpdateInstance", Role::Member, Kind::Instance, "instance.update"),
    change("cloud.v1.InstanceService/StartInstance", Role::Member, Kind::Instance, "instance.start"),
    change("cloud.v1.InstanceService/StopInstance", Role::Member, Kind::Instance, "instance.stop"),
    change("cloud.v1.InstanceService/RebootInstance", Role::Member, Kind::Instance, "instance.reboot"),
    change("cloud.v1.InstanceService/PauseInstance", Role::Member, Kind::Instance, "instance.pause"),
    change("cloud.v1.InstanceService/ResumeInstance", Role::Member, Kind::Instance, "instance.resume"),
    change("cloud.v1.InstanceService/ResizeInstance", Role::Member, Kind::Instance, "instance.resize"),
    change("cloud.v1.InstanceService/DeleteInstance", Role::Member, Kind::Instance, "instance.delete"),
    change("cloud.v1.InstanceService/AttachVolume", Role::Member, Kind::Instance, "instance.attach-volume"),
    change("cloud.v1.InstanceService/DetachVolume", Role::Member, Kind::Instance, "instance.detach-volume"),
    read("cloud.v1.InstanceService/GetConsoleUrl", Role::Member),
    read("cloud.v1.InstanceService/GetConsoleLog", Role::Viewer),
    read("cloud.v1.InstanceService/StreamConsole", Role::Member),
    read("cloud.v1.InstanceService/GetInstanceStats", Role::Viewer),
    change("cloud.v1.InstanceService/MigrateInstance", Role::Operator, Kind::Instance, "instance.migrate"),
    read("cloud.v1.InstanceService/ExplainInstance", Role::Viewer),
    change("cloud.v1.PortService/CreatePort", Role::Member, Kind::Port, "port.create"),
    read("cloud.v1.PortService/GetPort", Role::Viewer),
    read("cloud.v1.PortService/ListPorts", Role::Viewer),
    read("cloud.v1.PortService/WatchPorts", Role::Viewer),
    change("cloud.v1.PortService/UpdatePort", Role::Member, Kind::Port, "port.update"),
    change("cloud.v1.PortService/DeletePort", Role::Member, Kind::Port, "port.delete"),
    change(
        "cloud.v1.SecurityGroupService/CreateSecurityGroup",
        Role::Member,
        Kind::SecurityGroup,
        "security-group.create",
    ),
    read("cloud.v1.SecurityGroupService/GetSecurityGroup", Role::Viewer),
    read("cloud.v1.SecurityGroupService/ListSecurityGroups", Role::Viewer),
    read("cloud.v1.SecurityGroupService/WatchSecurityGroups", Role::Viewer),
    change(
        "cloud.v1.SecurityGroupService/DeleteSecurityGroup",
        Role::Member,
        Kind::SecurityGroup,
        "security-group.delete",
    ),
    change(
        "cloud.v1.SecurityGroupService/AddSecurityGroupRule",
        Role::Member,
        Kind::SecurityGroup,
        "security-group.add-rule",
    ),
    change(
        "cloud.v1.SecurityGroupService/RemoveSecurityGroupRule",
        Role::Member,
        Kind::SecurityGroup,
        "security-group.remove-rule",
    ),
    change("cloud.v1.SnapshotService/CreateSnapshot", Role::Member, Kind::Snapshot, "snapshot.create"),
    read("cloud.v1.SnapshotService/GetSnapshot", Role::Viewer),
    read("cloud.v1.SnapshotService/ListSnapshots", Role::Viewer),
    read("cloud.v1.SnapshotService/WatchSnapshots", Role::Viewer),
    change("cloud.v1.SnapshotService/DeleteSnapshot", Role::Member, Kind::Snapshot, "snapshot.delete"),
    change("cloud.v1.SshKeyService/CreateSshKey", Role::Member, Kind::SshKey, "ssh-key.create"),
    read("cloud.v1.SshKeyService/GetSshKey", Role::Viewer),
    read("cloud.v1.SshKeyService/ListSshKeys", Role::Viewer),
    change("cloud.v1.SshKeyService/DeleteSshKey", Role::Member, Kind::SshKey, "ssh-key.delete"),
    change("cloud.v1.VolumeService/CreateVolume", Role::Member, Kind::Volume, "volume.create"),
    read("cloud.v1.VolumeService/GetVolume", Role::Viewer),
    read("cloud.v1.VolumeService/ListVolumes", Role::Viewer),
    read("cloud.v1.VolumeService/WatchVolumes", Role::Viewer),
    change("cloud.v1.VolumeService/UpdateVolume", Role::Member, Kind::Volume, "volume.update"),
    change("cloud.v1.VolumeService/ResizeVolume", Role::Member, Kind::Volume, "volume.resize"),
    change("cloud.v1.VolumeService/DeleteVolume", Role::Member, Kind::Volume, "volume.delete"),
    change("cloud.v1.VpcService/CreateVpc", Role::Member, Kind::Vpc, "vpc.create"),
    read("cloud.v1.VpcService/GetVpc", Role::Viewer),
    read("cloud.v1.VpcService/ListVpcs", Role::Viewer),
    read("cloud.v1.VpcService/WatchVpcs", Role::Viewer),
    change("cloud.v1.VpcService/UpdateVpc", Role::Member, Kind::Vpc, "vpc.update"),
    change("cloud.v1.VpcService/DeleteVpc", Role::Member, Kind::Vpc, "vpc.delete"),
    change("cloud.v1.SubnetService/CreateSubnet", Role::Member, Kind::Subnet, "subnet.create"),
    read("cloud.v1.SubnetService/GetSubnet", Role::Viewer),
    read("cloud.v1.SubnetService/ListSubnets", Role::Viewer),
    read("cloud.v1.SubnetService/WatchSubnets", Role::Viewer),
    change("cloud.v1.SubnetService/DeleteSubnet", Role::Member, Kind::Subnet, "subnet.delete"),
];
