//! VPCs, subnets and ports: the calls on them.

use std::{net::Ipv4Addr, sync::Arc};

use cloud_domain::{Cidr, SubnetId, VpcId};

use super::{
    Page, PageRequest, Settings,
    lookup::{any, as_id, check_etag, event, insert, labels, live, member, name},
    quotas::claim,
};
use crate::{
    CoreError, Kind,
    model::{Amounts, Caller, Labels, Limited, Meta, Nic, Orphan, Port, Subnet, Timestamp, Vpc},
    ports::{Query, Store, Tx},
};

/// The range of a VPC whose maker names none.
const DEFAULT_CIDR: &str = "10.0.0.0/16";
/// The prefix length of a new VPC's first subnet.
const SUBNET_PREFIX: u8 = 24;

/// A VPC that a caller wants.
#[derive(Debug, Clone, Default)]
pub struct NewVpc {
    /// Its name.
    pub name: String,
    /// Its range; empty: 10.0.0.0/16.
    pub cidr: String,
    /// Words of the user's own.
    pub labels: Labels,
}

/// A subnet that a caller wants.
#[derive(Debug, Clone, Default)]
pub struct NewSubnet {
    /// The VPC, by id or name.
    pub vpc: String,
    /// Its name.
    pub name: String,
    /// Its range.
    pub cidr: String,
    /// Resolvers told to guests.
    pub dns_servers: Vec<String>,
    /// Words of the user's own.
    pub labels: Labels,
}

/// Isolated networks.
#[derive(Clone)]
pub struct VpcService<S> {
    store: S,
    settings: Arc<Settings>,
}

/// What a VPC holds of its project's quota.
fn held() -> Amounts {
    Amounts::from([(Limited::Vpcs, 1)])
}

/// A VPC and its first subnet, as rows.
pub(super) async fn make<T: Tx>(tx: &mut T, meta: Meta, cidr: Cidr, is_default: bool) -> Result<Vpc, CoreError> {
    let vpc = Vpc { vni: tx.next_vni().await?, meta, cidr, is_default };
    insert(tx, &vpc).await?;
    let net = cidr.net();
    let first = format!("{}/{}", net.network(), net.prefix_len().max(SUBNET_PREFIX));
    let first: Cidr = first.parse().map_err(|e| CoreError::Internal(Box::new(e)))?;
    let id = *SubnetId::random().as_uuid();
    let meta = Meta::new(id, vpc.meta.project, &vpc.meta.project_name, "default", Labels::new());
    let subnet = Subnet { meta, vpc: vpc.id(), vpc_name: vpc.meta.name.clone(), cidr: first, dns_servers: Vec::new() };
    insert(tx, &subnet).await?;
    Ok(vpc)
}

impl<S: Store> VpcService<S> {
    /// The service over a store.
    pub fn new(store: S, settings: Arc<Settings>) -> Self {
        Self { store, settings }
    }

    /// Makes a VPC with a subnet called `default`.
    ///
    /// # Errors
    /// Invalid, `AlreadyExists`, `QuotaExceeded`.
    pub async fn create(&self, caller: &Caller, request: NewVpc) -> Result<Vpc, CoreError> {
        member(caller)?;
        name(&request.name)?;
        labels(&request.labels)?;
        let text = if request.cidr.is_empty() { DEFAULT_CIDR } else { &request.cidr };
        let cidr: Cidr = text.parse().map_err(|e| CoreError::invalid("cidr", e))?;
        let id = *VpcId::random().as_uuid();
        let meta = Meta::new(id, caller.project, &caller.project_name, &request.name, request.labels);
        let mut tx = self.store.begin().await?;
        let vpc = make(&mut tx, meta, cidr, false).await?;
        tx.event(event(caller, &vpc, "vpc.create")).await?;
        claim(&mut tx, &self.settings, caller, &held()).await?;
        tx.commit().await?;
        Ok(vpc)
    }

    /// A VPC by id or name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Vpc, CoreError> {
        any(&self.store, caller.project, id).await
    }

    /// The project's VPCs.
    ///
    /// # Errors
    /// Invalid filter, order or page token.
    pub async fn list(&self, caller: &Caller, page: &PageRequest) -> Result<Page<Vpc>, CoreError> {
        page.list(&self.store, Some(caller.project), Query::default()).await
    }

    /// Deletes a VPC and its subnets. No host knows a VPC without ports or guests, so it is gone at once.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Precondition while it has ports or is the default one.
    pub async fn delete(&self, caller: &Caller, id: &str, etag: &str) -> Result<Vpc, CoreError> {
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let mut vpc: Vpc = live(&mut tx, caller.project, id).await?;
        check_etag(&vpc, etag)?;
        if vpc.is_default {
            let message = format!("VPC `{}` is the project's default one", vpc.meta.name);
            return Err(CoreError::precondition("VPC_DEFAULT", message));
        }
        // From here on no launch can add a port behind our back.
        tx.bump_generation(vpc.id()).await?;
        let what = format!("VPC `{}`", vpc.meta.name);
        no_ports(&mut tx, "vpc_id", &vpc.id(), &what).await?;
        no_strangers(&mut tx, &what, |nic| nic.vpc == vpc.id()).await?;
        let subnets: Vec<Subnet> = tx.list(&Query::by("vpc_id", &vpc.id())).await?;
        for mut subnet in subnets {
            subnet.meta.deleted_at = Some(Timestamp::now());
            tx.update(&mut subnet).await?;
        }
        vpc.meta.deleted_at = Some(Timestamp::now());
        tx.update(&mut vpc).await?;
        tx.event(event(caller, &vpc, "vpc.delete")).await?;
        // No host knows a VPC without ports, so it is gone with this.
        tx.release_quota(caller.project, &held()).await?;
        tx.commit().await?;
        Ok(vpc)
    }

    /// Makes a subnet.
    ///
    /// # Errors
    /// `NotFound` (VPC), Invalid where it lies outside its VPC or overlaps another, `AlreadyExists`.
    pub async fn create_subnet(&self, caller: &Caller, request: NewSubnet) -> Result<Subnet, CoreError> {
        member(caller)?;
        name(&request.name)?;
        labels(&request.labels)?;
        let cidr: Cidr = request.cidr.parse().map_err(|e| CoreError::invalid("cidr", e))?;
        let dns_servers = request
            .dns_servers
            .iter()
            .map(|t| {
                t.parse::<Ipv4Addr>()
                    .map_err(|_| CoreError::invalid("dns_servers", format!("`{t}` is not an IPv4 address")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut tx = self.store.begin().await?;
        let vpc: Vpc = live(&mut tx, caller.project, &request.vpc).await?;
        if !vpc.cidr.contains(&cidr) {
            return Err(CoreError::invalid("cidr", format!("{cidr} is not within the VPC's range {}", vpc.cidr)));
        }
        // Makes concurrent subnets of one VPC wait for each other, so that they cannot overlap, and tells its hosts.
        tx.bump_generation(vpc.id()).await?;
        let others: Vec<Subnet> = tx.list(&Query::by("vpc_id", &vpc.id())).await?;
        let id = *SubnetId::random().as_uuid();
        let meta = Meta::new(id, caller.project, &caller.project_name, &request.name, request.labels);
        let subnet = Subnet { meta, vpc: vpc.id(), vpc_name: vpc.meta.name.clone(), cidr, dns_servers };
        if others.iter().any(|s| s.meta.name == subnet.meta.name) {
            return Err(CoreError::AlreadyExists { kind: Kind::Subnet, name: subnet.meta.name });
        }
        if let Some(other) = others.iter().find(|s| s.cidr.overlaps(&cidr)) {
            let message = format!("{cidr} overlaps subnet `{}` ({})", other.meta.name, other.cidr);
            return Err(CoreError::invalid("cidr", message));
        }
        insert(&mut tx, &subnet).await?;
        tx.enqueue(crate::ports::WorkKind::Vpc, vpc.meta.id).await?;
        tx.event(event(caller, &subnet, "subnet.create")).await?;
        tx.commit().await?;
        Ok(subnet)
    }

    /// A subnet by id or name. By id, the VPC may be left out.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_subnet(&self, caller: &Caller, vpc: &str, id: &str) -> Result<Subnet, CoreError> {
        if vpc.is_empty() && as_id(id).is_some() {
            return any(&self.store, caller.project, id).await;
        }
        let vpc: Vpc = self.get(caller, vpc).await?;
        let not_found = || CoreError::not_found(Kind::Subnet, id);
        if let Some(uuid) = as_id(id) {
            let row: Option<Subnet> = self.store.get(uuid).await?;
            return row.filter(|s| s.vpc == vpc.id()).ok_or_else(not_found);
        }
        let all: Vec<Subnet> = self.store.list(&Query::by("vpc_id", &vpc.id())).await?;
        all.into_iter().find(|s| s.meta.name == id).ok_or_else(not_found)
    }

    /// A VPC's subnets.
    ///
    /// # Errors
    /// `NotFound` (VPC), invalid filter, order or page token.
    pub async fn list_subnets(
        &self,
        caller: &Caller,
        vpc: &str,
        page: &PageRequest,
    ) -> Result<Page<Subnet>, CoreError> {
        let vpc: Vpc = self.get(caller, vpc).await?;
        page.list(&self.store, Some(caller.project), Query::by("vpc_id", &vpc.id())).await
    }

    /// Deletes a subnet.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Precondition while it has ports.
    pub async fn delete_subnet(&self, caller: &Caller, vpc: &str, id: &str, etag: &str) -> Result<Subnet, CoreError> {
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let vpc: Vpc = live(&mut tx, caller.project, vpc).await?;
        // From here on no launch can add a port behind our back.
        tx.bump_generation(vpc.id()).await?;
        let all: Vec<Subnet> = tx.list(&Query::by("vpc_id", &vpc.id())).await?;
        let found = all.into_iter().find(|s| s.meta.name == id || s.meta.id.to_string() == id);
        let mut row = found.ok_or_else(|| CoreError::not_found(Kind::Subnet, id))?;
        check_etag(&row, etag)?;
        let what = format!("subnet `{}`", row.meta.name);
        no_ports(&mut tx, "subnet_id", &row.id(), &what).await?;
        no_strangers(&mut tx, &what, |nic| nic.subnet == row.id()).await?;
        row.meta.deleted_at = Some(Timestamp::now());
        tx.update(&mut row).await?;
        tx.enqueue(crate::ports::WorkKind::Vpc, vpc.meta.id).await?;
        tx.event(event(caller, &row, "subnet.delete")).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// A port by id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_port(&self, caller: &Caller, id: &str) -> Result<Port, CoreError> {
        any(&self.store, caller.project, id).await
    }

    /// The project's ports.
    ///
    /// # Errors
    /// Invalid filter, order or page token.
    pub async fn list_ports(&self, caller: &Caller, page: &PageRequest) -> Result<Page<Port>, CoreError> {
        page.list(&self.store, Some(caller.project), Query::default()).await
    }
}

async fn no_ports<T: Tx>(
    tx: &mut T,
    column: &'static str,
    id: &(impl ToString + Sync),
    what: &str,
) -> Result<(), CoreError> {
    let query = Query { limit: Some(1), ..Query::by(column, id) };
    let ports: Vec<Port> = tx.list(&query).await?;
    match ports.first() {
        None => Ok(()),
        Some(port) => Err(CoreError::precondition(
            "HAS_PORTS",
            format!("{what} has ports, one of instance `{}`: delete its instances first", port.instance_name),
        )),
    }
}

/// Guests that no row knows keep their network until somebody has decided about them.
pub(super) async fn no_strangers<T: Tx>(tx: &mut T, what: &str, uses: impl Fn(&Nic) -> bool) -> Result<(), CoreError> {
    let orphans: Vec<Orphan> = tx.list(&Query::default()).await?;
    let guests = orphans.iter().filter_map(|orphan| Some((orphan, orphan.kept.as_ref()?)));
    match guests.into_iter().find(|(_, kept)| kept.nics.iter().any(&uses)) {
        None => Ok(()),
        Some((orphan, kept)) => Err(CoreError::precondition(
            "HAS_PORTS",
            format!(
                "{what} has a guest `{}` on host {} that this database does not know: an operator adopts or removes it first (`cloud host orphan ls {1}`)",
                kept.meta.name, orphan.host_name
            ),
        )),
    }
}
