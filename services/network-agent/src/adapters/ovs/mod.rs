//! The switch as Open vSwitch: one bridge, tagged as this cloud's; ports through its database, flows through its management socket.

mod jsonrpc;
mod liveness;
mod ofctl;
mod ovsdb;
mod ports;

use std::{
    collections::BTreeMap,
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use cloud_domain::{CloudId, PortId, Vni, VpcId};
use cloud_service_kit::exec::{Command, run};
use serde_json::{Value, json};

pub use self::liveness::watch_switch;
use self::{
    ofctl::Ofctl,
    ovsdb::{Ovsdb, Row, as_map, as_set, map},
};
use super::devices::make_ready;
use crate::core::{
    diff::Change,
    flow::{Flow, OfPort},
    ports::{BackendError, PortChange, Switch, SwitchPort},
};

/// Which implementation forwards packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    /// The kernel's.
    System,
    /// The one within ovs-vswitchd.
    Netdev,
}

impl fmt::Display for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Netdev => "netdev",
        })
    }
}

impl Datapath {
    /// `system` where the kernel has Open vSwitch (its module is loaded if need be), else `netdev`.
    pub async fn detect() -> Self {
        let loaded = || Path::new("/sys/module/openvswitch").exists();
        if !loaded()
            && let Err(error) = run(&Command::new("modprobe").args(["--quiet", "openvswitch"])).await
        {
            tracing::info!(%error, "the kernel has no Open vSwitch: forwarding in userspace");
        }
        if loaded() { Self::System } else { Self::Netdev }
    }
}

/// Which bridge, and how it is made.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// The bridge's name.
    pub name: String,
    /// What it must be, if that was said.
    pub required: Option<Datapath>,
    /// What a new one gets.
    pub preferred: Datapath,
    /// The address tunnels of other hosts end at, where there are others.
    pub tunnel_address: Option<Ipv4Addr>,
    /// Where Open vSwitch has its sockets, such as `/var/run/openvswitch`.
    pub run_dir: PathBuf,
}

impl BridgeConfig {
    /// The device the DHCP responder listens on.
    #[must_use]
    pub fn dhcp_device(&self) -> String {
        format!("{}-dhcp", self.name)
    }

    /// The OpenFlow management socket.
    #[must_use]
    pub fn management_socket(&self) -> PathBuf {
        self.run_dir.join(format!("{}.mgmt", self.name))
    }

    fn tunnel_port(&self) -> String {
        format!("{}-tun", self.name)
    }
}

/// What a switch is, for capacity reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchInfo {
    /// `system` or `netdev`.
    pub datapath: String,
    /// Such as `Open vSwitch 3.1.0`.
    pub version: String,
}

/// One bridge of Open vSwitch.
#[derive(Debug)]
pub struct OpenVswitch {
    config: BridgeConfig,
    database: Ovsdb,
    flows: Ofctl,
}

/// The bridge as found.
struct Bridge {
    tags: BTreeMap<String, String>,
    row: Row,
}

impl OpenVswitch {
    /// The bridge that `config` names; nothing is done yet.
    #[must_use]
    pub fn new(config: BridgeConfig) -> Self {
        let database = Ovsdb::new(config.run_dir.join("db.sock"));
        let flows = Ofctl::new(&config.management_socket());
        Self { config, database, flows }
    }

    /// What the switch is.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn info(&self) -> Result<SwitchInfo, BackendError> {
        let rows = self.database.select("Open_vSwitch", json!([]), &["ovs_version"]).await?;
        let version = rows.first().and_then(|row| row["ovs_version"].as_str()).unwrap_or("of unknown version");
        let bridge = self.bridge().await?;
        let datapath = bridge.and_then(|b| b.row["datapath_type"].as_str().map(str::to_owned));
        let datapath = datapath.unwrap_or_else(|| self.config.preferred.to_string());
        Ok(SwitchInfo { datapath, version: format!("Open vSwitch {version}") })
    }

    /// The cloud that the bridge is tagged with; none where there is no bridge or no tag.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn owner(&self) -> Result<Option<CloudId>, BackendError> {
        Ok(self.bridge().await?.and_then(|bridge| bridge.tags.get(ports::CLOUD)?.parse().ok()))
    }

    async fn bridge(&self) -> Result<Option<Bridge>, BackendError> {
        let columns = ["_uuid", "datapath_type", "fail_mode", "external_ids", "ports"];
        let rows = self.database.select("Bridge", json!([["name", "==", self.config.name]]), &columns).await?;
        Ok(rows.into_iter().next().map(|row| Bridge { tags: as_map(&row["external_ids"]), row }))
    }

    /// The bridge, if it is ours.
    async fn own_bridge(&self, cloud: CloudId) -> Result<Option<Bridge>, BackendError> {
        let Some(bridge) = self.bridge().await? else { return Ok(None) };
        let (name, owner) = (&self.config.name, bridge.tags.get(ports::CLOUD));
        if owner == Some(&cloud.to_string()) {
            return Ok(Some(bridge));
        }
        let owner = owner.map_or("nobody's tag".to_owned(), |owner| format!("the tag of cloud {owner}"));
        Err(BackendError::Refused(format!(
            "bridge {name} exists and carries {owner}, not this cloud's ({cloud}): it is not touched. \
             Choose another bridge with --bridge, or remove that one"
        )))
    }

    async fn create(&self, cloud: CloudId) -> Result<(), BackendError> {
        let (name, datapath) = (&self.config.name, self.config.preferred);
        tracing::info!(bridge = %name, %datapath, "making the integration bridge");
        let mut operations = Vec::new();
        let own = ports::internal(&mut operations, 0, name, None, cloud);
        operations.push(json!({
            "op": "insert", "table": "Bridge", "uuid-name": "bridge", "row": {
                "name": name,
                "datapath_type": datapath.to_string(),
                "fail_mode": "secure",
                "ports": own,
                "external_ids": map([(ports::CLOUD, cloud.to_string())]),
            }
        }));
        operations.push(json!({
            "op": "mutate", "table": "Open_vSwitch", "where": [],
            "mutations": [["bridges", "insert", ["named-uuid", "bridge"]]],
        }));
        self.database.transact_and_wait(operations).await
    }

    /// Makes the ports that are not guests', and what else an adopted bridge lacks.
    async fn complete(&self, cloud: CloudId, bridge: &Bridge) -> Result<(), BackendError> {
        let name = &self.config.name;
        if let (Some(wanted), Some(found)) = (self.config.required, bridge.row["datapath_type"].as_str())
            && wanted.to_string() != found
        {
            return Err(BackendError::Refused(format!(
                "bridge {name} forwards by datapath `{found}`, the configuration says `{wanted}`: changing it would cut guests off. \
                 Use --datapath {found}, or move the guests away and remove the bridge"
            )));
        }
        let existing = self.database.select("Port", json!([]), &["name"]).await?;
        let has = |port: &str| existing.iter().any(|row| row["name"] == port);
        let mut operations = Vec::new();
        let mut added = Vec::new();
        if !has(&self.config.dhcp_device()) {
            added.push(ports::internal(&mut operations, 1, &self.config.dhcp_device(), Some(OfPort::DHCP), cloud));
        }
        if let Some(address) = self.config.tunnel_address
            && !has(&self.config.tunnel_port())
        {
            added.push(ports::tunnel(&mut operations, 2, &self.config.tunnel_port(), address, cloud));
        }
        let insecure = as_set(&bridge.row["fail_mode"]) != [json!("secure")];
        if insecure {
            operations.push(json!({
                "op": "update", "table": "Bridge", "where": [["name", "==", name]], "row": {"fail_mode": "secure"}
            }));
        }
        if operations.is_empty() {
            return Ok(());
        }
        operations.push(self.mutate_bridge(&json!([["ports", "insert", ["set", added]]])));
        self.database.transact_and_wait(operations).await
    }

    fn mutate_bridge(&self, mutations: &Value) -> Value {
        json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", self.config.name]], "mutations": mutations})
    }
}

#[async_trait]
impl Switch for OpenVswitch {
    async fn ensure_bridge(&self, cloud: CloudId) -> Result<(), BackendError> {
        if self.own_bridge(cloud).await?.is_none() {
            self.create(cloud).await?;
        }
        let missing = || BackendError::failed(format!("bridge {} was made and is not there", self.config.name));
        let bridge = self.own_bridge(cloud).await?.ok_or_else(missing)?;
        self.complete(cloud, &bridge).await?;
        make_ready(&self.config.dhcp_device()).await
    }

    async fn ports(&self, cloud: CloudId) -> Result<BTreeMap<PortId, SwitchPort>, BackendError> {
        let tags = [(ports::CLOUD, cloud.to_string()), (ports::BRIDGE, self.config.name.clone())];
        let condition = json!([["external_ids", "includes", map(tags)]]);
        let columns = ["name", "ofport", "error", "external_ids"];
        let rows = self.database.select("Interface", condition, &columns).await?;
        Ok(rows.iter().filter_map(ports::read).map(|port| (port.port, port)).collect())
    }

    async fn vpcs(&self) -> Result<BTreeMap<VpcId, Vni>, BackendError> {
        let tags = self.bridge().await?.map(|bridge| bridge.tags).unwrap_or_default();
        let vpc = |(key, value): (&String, &String)| {
            let vpc = key.strip_prefix(ports::VPC_NOTE)?.parse().ok()?;
            Some((vpc, Vni::try_from(value.parse::<u32>().ok()?).ok()?))
        };
        Ok(tags.iter().filter_map(vpc).collect())
    }

    async fn change_ports(&self, cloud: CloudId, change: PortChange) -> Result<(), BackendError> {
        let mut operations = Vec::new();
        let mut mutations = Vec::new();
        if !change.unplug.is_empty() {
            let condition = json!([["external_ids", "includes", map([(ports::CLOUD, cloud.to_string())])]]);
            let rows = self.database.select("Port", condition, &["_uuid", "name"]).await?;
            let gone = rows.iter().filter(|row| change.unplug.iter().any(|device| row["name"] == *device));
            let gone: Vec<Value> = gone.map(|row| row["_uuid"].clone()).collect();
            mutations.push(json!(["ports", "delete", ["set", gone]]));
        }
        let plugged = change.plug.iter().enumerate();
        let plugged: Vec<Value> =
            plugged.map(|(i, port)| ports::guest(&mut operations, i, port, cloud, &self.config.name)).collect();
        if !plugged.is_empty() {
            mutations.push(json!(["ports", "insert", ["set", plugged]]));
        }
        if let Some((vpc, vni)) = change.note {
            let key = format!("{}{vpc}", ports::VPC_NOTE);
            mutations.push(json!(["external_ids", "delete", ["set", [&key]]]));
            if let Some(vni) = vni {
                mutations.push(json!(["external_ids", "insert", map([(&key, vni.to_string())])]));
            }
        }
        operations.push(self.mutate_bridge(&Value::Array(mutations)));
        self.database.transact_and_wait(operations).await
    }

    async fn flows(&self) -> Result<Vec<Flow>, BackendError> {
        self.flows.dump().await
    }

    async fn flow_count(&self) -> Result<usize, BackendError> {
        self.flows.count().await
    }

    async fn change_flows(&self, change: &Change) -> Result<(), BackendError> {
        self.flows.change(change).await
    }

    async fn remove_bridge(&self, cloud: CloudId) -> Result<(), BackendError> {
        let Some(bridge) = self.own_bridge(cloud).await? else { return Ok(()) };
        let operation = json!({
            "op": "mutate", "table": "Open_vSwitch", "where": [],
            "mutations": [["bridges", "delete", bridge.row["_uuid"]]],
        });
        self.database.transact_and_wait(vec![operation]).await
    }
}
