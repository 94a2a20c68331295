//! The instances that are there already: rows by the gateway's own store, and what they have on their hosts.

use std::time::SystemTime;

use anyhow::Context as _;
use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_contracts::agent::{self, PortSlice, PowerState, StateReason, SubnetSlice, volume_spec::Source};
use cloud_core::{
    model::{
        Amounts, Desired, Disk, Image, Instance, Labels, Limited, Meta, Nic, Port, Project, RestartPolicy, Subnet,
        Timestamp, Volume, VolumeLimits, VolumeStatus, Vpc,
    },
    ports::{Claim, Query, Store, Tx},
};
use cloud_domain::{
    Cidr, Gib, Incarnation, InstanceId, InstanceStatus, MacAddr, PortId, ProjectId, SubnetId, VolumeId, VpcId,
};
use cloud_testkit::{
    SimHost,
    sim::{Domain, SimVolume, SimVpc, Snapshot},
};

/// Instances of one VPC, and the hosts that they are spread over.
const IN_VPC: usize = 50;
const HOSTS_OF_VPC: usize = 10;
const VCPUS: u32 = 1;
const MEMORY_MIB: u32 = 128;

struct Filler<'a> {
    hosts: &'a [SimHost],
    cloud: String,
    project: Project,
    image: Image,
}

/// Writes `count` running instances, and puts them on the hosts.
pub async fn fill(url: &str, hosts: &[SimHost], count: usize) -> anyhow::Result<()> {
    let store = SqlStore::open(url).await?;
    let project = store.list::<Project>(&Query::default()).await?.pop().context("a project")?;
    let image = store.list::<Image>(&Query::default()).await?.pop().context("an image")?;
    let filler = Filler { hosts, cloud: store.identity().0.to_string(), project, image };
    for vpc in 0..count.div_ceil(IN_VPC) {
        filler.vpc(&store, vpc, IN_VPC.min(count - vpc * IN_VPC)).await?;
    }
    store.close().await;
    Ok(())
}

impl Filler<'_> {
    fn meta(&self, id: uuid::Uuid, name: &str) -> Meta {
        Meta::new(id, ProjectId::from(self.project.meta.id), &self.project.meta.name, name, Labels::new())
    }

    /// One VPC with its instances, in one transaction.
    async fn vpc(&self, store: &SqlStore, number: usize, count: usize) -> anyhow::Result<()> {
        let cidr: Cidr = "10.0.0.0/24".parse()?;
        let mut tx = store.begin().await?;
        let vpc = Vpc {
            meta: self.meta(*VpcId::random().as_uuid(), &format!("fill-{number}")),
            cidr,
            vni: tx.next_vni().await?,
            is_default: false,
        };
        let subnet = Subnet {
            meta: self.meta(*SubnetId::random().as_uuid(), "default"),
            vpc: vpc.id(),
            vpc_name: vpc.meta.name.clone(),
            cidr,
            dns_servers: Vec::new(),
        };
        tx.insert(&vpc).await?;
        tx.insert(&subnet).await?;
        let instances = count as u64;
        let held = Amounts::from([
            (Limited::Vpcs, 1),
            (Limited::Instances, instances),
            (Limited::Vcpus, instances * u64::from(VCPUS)),
            (Limited::MemoryMib, instances * u64::from(MEMORY_MIB)),
            (Limited::VolumeGib, instances),
        ]);
        let claim = tx.claim_quota(ProjectId::from(self.project.meta.id), &held, &Amounts::new()).await?;
        anyhow::ensure!(claim == Claim::Held, "{claim:?}");
        let mut made = Vec::with_capacity(count);
        for index in 0..count {
            let host = &self.hosts[(number * HOSTS_OF_VPC + index % HOSTS_OF_VPC) % self.hosts.len()];
            let (instance, volume, port) = self.instance(host, &vpc, &subnet, number, index)?;
            tx.insert(&instance).await?;
            tx.insert(&volume).await?;
            tx.insert(&port).await?;
            let claimed = tx.claim_capacity(instance.host, VCPUS, MEMORY_MIB).await?;
            anyhow::ensure!(claimed.is_some(), "host {} is full", host.name());
            made.push((host, instance, volume, port));
        }
        tx.commit().await?;
        for (host, ..) in &made {
            let here: Vec<_> = made.iter().filter(|(h, ..)| h.id() == host.id()).collect();
            host.edit(|is| {
                is.vpcs.entry(vpc.meta.id.to_string()).or_insert_with(|| {
                    self.slice(&vpc, &subnet, made.iter().map(|(.., port)| (port, port.host.to_string() == host.id())))
                });
                here.iter().for_each(|(_, instance, volume, _)| self.place(is, host.name(), instance, volume));
            });
        }
        Ok(())
    }

    fn instance(
        &self,
        host: &SimHost,
        vpc: &Vpc,
        subnet: &Subnet,
        number: usize,
        index: usize,
    ) -> anyhow::Result<(Instance, Volume, Port)> {
        let (id, port_id) = (InstanceId::random(), PortId::random());
        let name = format!("fill-{number}-{index}");
        let ip = subnet.cidr.guest(u32::try_from(index)?).context("an address")?;
        let size = Gib::try_from(1)?;
        let volume = Volume {
            meta: self.meta(*VolumeId::random().as_uuid(), &format!("root-{id}")),
            size,
            status: VolumeStatus::InUse,
            status_reason: String::new(),
            host: Some(host.id().parse()?),
            host_name: host.name().into(),
            pool: "default".into(),
            instance: Some(id),
            instance_name: name.clone(),
            root: true,
            image: Some(self.image.id()),
            image_name: self.image.meta.name.clone(),
            data_missing: false,
            copied: None,
            growing_to: None,
            limits: VolumeLimits::default(),
            limits_pending: false,
        };
        let port = Port {
            meta: self.meta(*port_id.as_uuid(), &port_id.to_string()),
            vpc: vpc.id(),
            vpc_name: vpc.meta.name.clone(),
            subnet: subnet.id(),
            subnet_name: subnet.meta.name.clone(),
            mac: MacAddr::for_port(port_id),
            ip,
            instance: id,
            instance_name: name.clone(),
            host: host.id().parse()?,
            host_name: host.name().into(),
            removing: false,
        };
        let nic = Nic {
            port: port_id,
            vpc: vpc.id(),
            vpc_name: vpc.meta.name.clone(),
            subnet: subnet.id(),
            subnet_name: subnet.meta.name.clone(),
            mac: port.mac,
            ip,
        };
        let instance = Instance {
            meta: self.meta(*id.as_uuid(), &name),
            image: self.image.id(),
            image_name: self.image.meta.name.clone(),
            instance_type: "tiny".into(),
            vcpus: VCPUS,
            memory_mib: MEMORY_MIB,
            status: InstanceStatus::Running,
            status_reason: String::new(),
            desired: Desired::Running,
            host: host.id().parse()?,
            host_name: host.name().into(),
            incarnation: Incarnation::random(),
            boot_generation: 0,
            booted_generation: 0,
            nics: vec![nic],
            disks: vec![Disk::of(&volume)],
            ssh_keys: Vec::new(),
            user_data: String::new(),
            started_at: Some(Timestamp::now()),
            has_run: true,
            holds_capacity: true,
            stop_requested_at: None,
            start_deadline: None,
            restart_policy: RestartPolicy::default(),
            quick_ends: 0,
            restart_at: None,
            missing: Vec::new(),
            anti_affinity_group: String::new(),
            placed: None,
        };
        Ok((instance, volume, port))
    }

    fn owner(&self, id: String, incarnation: String) -> agent::Owner {
        agent::Owner { cloud_id: self.cloud.clone(), resource_id: id, incarnation }
    }

    /// What a host has of the VPC.
    fn slice<'p>(&self, vpc: &Vpc, subnet: &Subnet, ports: impl Iterator<Item = (&'p Port, bool)>) -> SimVpc {
        let ports: Vec<PortSlice> = ports
            .map(|(port, local)| PortSlice {
                id: port.meta.id.to_string(),
                subnet_id: subnet.meta.id.to_string(),
                instance_id: port.instance.to_string(),
                mac: port.mac.to_string(),
                ip: port.ip.to_string(),
                local,
                tunnel_address: String::new(),
                hostname: port.instance_name.clone(),
            })
            .collect();
        let tap = |p: &PortSlice| Some((p.id.clone(), (p.id.parse::<PortId>().ok()?.tap_device(), 1)));
        SimVpc {
            owner: self.owner(vpc.meta.id.to_string(), String::new()),
            vni: vpc.vni.get(),
            mtu: 1450,
            applied: Some((1, 1)),
            subnets: vec![SubnetSlice {
                id: subnet.meta.id.to_string(),
                cidr: subnet.cidr.to_string(),
                gateway: subnet.cidr.gateway().to_string(),
                dns_servers: Vec::new(),
            }],
            plugged: ports.iter().filter(|p| p.local).filter_map(tap).collect(),
            ports,
        }
    }

    /// The guest and its disk.
    fn place(&self, is: &mut Snapshot, host: &str, instance: &Instance, volume: &Volume) {
        let path = format!("/sim/{host}/volumes/{}.qcow2", volume.meta.id);
        let (id, incarnation) = (instance.meta.id.to_string(), instance.incarnation.to_string());
        let nic = |nic: &Nic| agent::NicSpec {
            port_id: nic.port.to_string(),
            mac: nic.mac.to_string(),
            device: nic.port.tap_device(),
            mtu: 1450,
        };
        let spec = agent::InstanceSpec {
            id: id.clone(),
            name: instance.meta.name.clone(),
            incarnation: incarnation.clone(),
            vcpus: instance.vcpus,
            memory_mib: instance.memory_mib.into(),
            disks: vec![agent::DiskSpec {
                volume_id: volume.meta.id.to_string(),
                path: path.clone(),
                format: "qcow2".into(),
                ..agent::DiskSpec::default()
            }],
            nics: instance.nics.iter().map(nic).collect(),
            seed: None,
            boot_generation: 0,
            record: String::new(),
        };
        let domain = Domain {
            owner: self.owner(id.clone(), incarnation),
            spec,
            power: PowerState::Running,
            reason: StateReason::Unspecified,
            boot_generation: 0,
            started_at: Some(SystemTime::now()),
            starts: 1,
            reboots: 0,
            shutting_down: false,
            console: Vec::new(),
            grown: std::collections::BTreeMap::new(),
        };
        is.domains.insert(id, domain);
        let disk = SimVolume {
            owner: self.owner(volume.meta.id.to_string(), String::new()),
            size_bytes: volume.size.bytes(),
            created_size_bytes: volume.size.bytes(),
            source: volume.image.map(|i| Source::ImageId(i.to_string())),
            image_id: volume.image.map(|i| i.to_string()),
            pool: "default".into(),
            path,
            created: 1,
        };
        is.volumes.insert(volume.meta.id.to_string(), disk);
    }
}
