//! A client: makes its calls one after the other over gRPC, and writes down what it asked and what it was answered.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use cloud_contracts::v1::{
    self, instance_service_client::InstanceServiceClient, subnet_service_client::SubnetServiceClient,
    volume_service_client::VolumeServiceClient, vpc_service_client::VpcServiceClient,
};
use cloud_testkit::GrpcClient;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::{
    history::{Call, Key, Kind, Moment, Outcome, Record, Seen, Target},
    plan::Step,
    seen::{self, LABEL},
};

/// Whether changes carry a request id, and are made again under it until they are answered. The one switch.
pub const REQUEST_IDS: bool = true;
/// How often a call is made again that was not answered.
const RETRIES: u32 = if REQUEST_IDS { 6 } else { 0 };
/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(6);
/// How long a client that was not answered waits.
const AWAY: Duration = Duration::from_millis(300);
/// Rows of a page: few, so that lists have several.
const PAGE: i32 = 20;

/// A client of some gateways.
pub struct Client {
    pub gateways: Vec<GrpcClient>,
    /// What moments are counted from.
    pub start: Instant,
    /// Tells this run's request ids from all others'.
    pub run: String,
    /// The ids that it has seen last under a name.
    ids: HashMap<Key, String>,
    /// Instances and the volumes that they were given, by name.
    attached: Vec<(Key, String)>,
}

impl Client {
    pub fn new(gateways: Vec<GrpcClient>, start: Instant, run: impl Into<String>) -> Self {
        Self { gateways, start, run: run.into(), ids: HashMap::new(), attached: Vec::new() }
    }

    /// Makes the calls until they are made or `stop`.
    pub async fn run(mut self, steps: Vec<Step>, stop: CancellationToken) -> Vec<Record> {
        let mut records = Vec::with_capacity(steps.len());
        for step in steps {
            if stop.run_until_cancelled(sleep(step.rest)).await.is_none() {
                break;
            }
            let call = self.detached_for(step.call);
            let call = self.with_id(call, step.by_id);
            let record = self.make(step.op, step.gateway, call).await;
            if record.is_unknown() {
                // A gateway that is away refuses faster than it answers: not all calls shall be made to one that is.
                let _stopped = stop.run_until_cancelled(sleep(AWAY)).await;
            }
            records.push(record);
        }
        records
    }

    /// A detachment of what was attached last, where anything was: of any two names it would hardly ever be one.
    fn detached_for(&mut self, mut call: Call) -> Call {
        if let Call::Detach(target, volume) = &mut call
            && let Some((key, last)) = self.attached.pop()
        {
            *target = Target { key, id: None };
            *volume = last;
        }
        call
    }

    /// Names the resource by its id, where it is known.
    fn with_id(&self, mut call: Call, by_id: bool) -> Call {
        if by_id
            && let Call::Get(target)
            | Call::Start(target)
            | Call::Stop(target)
            | Call::Reboot(target)
            | Call::Delete(target)
            | Call::Attach(target, _)
            | Call::Detach(target, _) = &mut call
        {
            target.id = self.ids.get(&target.key).cloned();
        }
        call
    }

    /// Makes one call, again and again where it may be, and learns the ids it shows.
    pub async fn make(&mut self, op: u32, gateway: usize, call: Call) -> Record {
        let begun = self.now();
        let mut outcome = self.attempt(op, gateway, &call).await;
        for again in 1..=RETRIES {
            if !matches!(outcome, Outcome::Unknown { .. }) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
            outcome = match self.attempt(op, gateway + again as usize, &call).await {
                // The attempt that was not answered may still be under way.
                Outcome::Refused { code, message, .. } => Outcome::Unknown { code, message },
                outcome => outcome,
            };
        }
        let record = Record { op, begun, ended: self.now(), call, outcome };
        for seen in record.seen() {
            self.ids.insert(seen.key.clone(), seen.id.clone());
            match &record.call {
                Call::Attach(_, volume) => self.attached.push((seen.key.clone(), volume.clone())),
                Call::Launch { volumes, .. } => {
                    self.attached.extend(volumes.iter().map(|volume| (seen.key.clone(), volume.clone())));
                }
                _ => {}
            }
        }
        record
    }

    fn now(&self) -> Moment {
        self.start.elapsed()
    }

    async fn attempt(&self, op: u32, gateway: usize, call: &Call) -> Outcome {
        let gateway = &self.gateways[gateway % self.gateways.len()];
        let request_id = if REQUEST_IDS { format!("{}-{op}", self.run) } else { String::new() };
        match perform(gateway, op, request_id, call).await {
            Ok(seen) => Outcome::Done(seen),
            Err(status) => outcome_of(&status),
        }
    }
}

/// What an error says of whether the call was carried out.
fn outcome_of(status: &Status) -> Outcome {
    let (code, message) = (status.code(), status.message().to_owned());
    let answered = matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::OutOfRange
            | Code::Unimplemented
    );
    if !answered {
        return Outcome::Unknown { code, message };
    }
    let resource = status.get_details_resource_info();
    Outcome::Refused { code, resource: resource.map(|r| r.resource_type).unwrap_or_default(), message }
}

async fn perform(grpc: &GrpcClient, op: u32, request_id: String, call: &Call) -> Result<Vec<Seen>, Status> {
    let labels = BTreeMap::from([(LABEL.to_owned(), op.to_string())]);
    match call {
        Call::Launch { name, vpc, subnet, volumes } => {
            let volumes = volumes.iter().map(|v| v1::VolumeAttachment { volume: v.clone() }).collect();
            let request = v1::LaunchInstanceRequest {
                name: name.clone(),
                image: crate::cloud::IMAGE.to_owned(),
                instance_type: "tiny".to_owned(),
                vpc: vpc.clone(),
                subnet: subnet.clone(),
                volumes,
                labels,
                request_id,
                ..Default::default()
            };
            let made = in_time(request, |r| async { instances(grpc).launch_instance(r).await }).await?;
            Ok(vec![seen::instance(made)])
        }
        Call::Create(key) => create(grpc, key, labels, request_id).await,
        Call::Get(target) => get(grpc, target).await,
        Call::List(kind) => {
            let mut all = list(grpc, *kind, false).await?;
            all.retain(|seen| !seen::is_root(seen));
            Ok(all)
        }
        Call::Start(target) => {
            let request = v1::StartInstanceRequest { id: id(target), request_id, ..Default::default() };
            let row = in_time(request, |r| async { instances(grpc).start_instance(r).await }).await?;
            Ok(vec![seen::instance(row)])
        }
        Call::Stop(target) => {
            let request = v1::StopInstanceRequest { id: id(target), request_id, ..Default::default() };
            let row = in_time(request, |r| async { instances(grpc).stop_instance(r).await }).await?;
            Ok(vec![seen::instance(row)])
        }
        Call::Reboot(target) => {
            let request = v1::RebootInstanceRequest { id: id(target), request_id, ..Default::default() };
            let row = in_time(request, |r| async { instances(grpc).reboot_instance(r).await }).await?;
            Ok(vec![seen::instance(row)])
        }
        Call::Delete(target) => delete(grpc, target, request_id).await,
        Call::Attach(target, volume) => {
            let (id, volume) = (id(target), volume.clone());
            let request = v1::AttachVolumeRequest { id, volume, request_id, ..Default::default() };
            let row = in_time(request, |r| async { instances(grpc).attach_volume(r).await }).await?;
            Ok(vec![seen::instance(row)])
        }
        Call::Detach(target, volume) => {
            let (id, volume) = (id(target), volume.clone());
            let request = v1::DetachVolumeRequest { id, volume, request_id, ..Default::default() };
            let row = in_time(request, |r| async { instances(grpc).detach_volume(r).await }).await?;
            Ok(vec![seen::instance(row)])
        }
    }
}

async fn create(
    grpc: &GrpcClient,
    key: &Key,
    labels: BTreeMap<String, String>,
    request_id: String,
) -> Result<Vec<Seen>, Status> {
    let name = key.name.clone();
    Ok(vec![match key.kind {
        Kind::Volume => {
            let request = v1::CreateVolumeRequest { name, size_gib: 1, labels, request_id, ..Default::default() };
            seen::volume(in_time(request, |r| async { volumes(grpc).create_volume(r).await }).await?)
        }
        Kind::Vpc => {
            let request = v1::CreateVpcRequest { name, labels, request_id, ..Default::default() };
            seen::vpc(in_time(request, |r| async { vpcs(grpc).create_vpc(r).await }).await?)
        }
        Kind::Subnet => {
            // Each name has its own range: 14 addresses for guests.
            let number = name.bytes().last().unwrap_or(b'0') - b'0' + 1;
            let (vpc, cidr) = (key.scope.clone(), format!("10.0.{number}.0/28"));
            let request = v1::CreateSubnetRequest { vpc, name, cidr, labels, request_id, ..Default::default() };
            seen::subnet(in_time(request, |r| async { subnets(grpc).create_subnet(r).await }).await?)
        }
        Kind::Instance => return Err(Status::internal("instances are launched")),
    }])
}

async fn get(grpc: &GrpcClient, target: &Target) -> Result<Vec<Seen>, Status> {
    let id = id(target);
    Ok(vec![match target.key.kind {
        Kind::Instance => {
            let request = v1::GetInstanceRequest { id };
            seen::instance(in_time(request, |r| async { instances(grpc).get_instance(r).await }).await?)
        }
        Kind::Volume => {
            let request = v1::GetVolumeRequest { id };
            seen::volume(in_time(request, |r| async { volumes(grpc).get_volume(r).await }).await?)
        }
        Kind::Vpc => {
            let request = v1::GetVpcRequest { id };
            seen::vpc(in_time(request, |r| async { vpcs(grpc).get_vpc(r).await }).await?)
        }
        Kind::Subnet => {
            let request = v1::GetSubnetRequest { vpc: target.key.scope.clone(), id };
            seen::subnet(in_time(request, |r| async { subnets(grpc).get_subnet(r).await }).await?)
        }
    }])
}

async fn delete(grpc: &GrpcClient, target: &Target, request_id: String) -> Result<Vec<Seen>, Status> {
    let id = id(target);
    Ok(vec![match target.key.kind {
        Kind::Instance => {
            let request = v1::DeleteInstanceRequest { id, request_id, ..Default::default() };
            seen::instance(in_time(request, |r| async { instances(grpc).delete_instance(r).await }).await?)
        }
        Kind::Volume => {
            let request = v1::DeleteVolumeRequest { id, request_id, ..Default::default() };
            seen::volume(in_time(request, |r| async { volumes(grpc).delete_volume(r).await }).await?)
        }
        Kind::Vpc => {
            let request = v1::DeleteVpcRequest { id, request_id, ..Default::default() };
            seen::vpc(in_time(request, |r| async { vpcs(grpc).delete_vpc(r).await }).await?)
        }
        Kind::Subnet => {
            let vpc = target.key.scope.clone();
            let request = v1::DeleteSubnetRequest { vpc, id, request_id, ..Default::default() };
            seen::subnet(in_time(request, |r| async { subnets(grpc).delete_subnet(r).await }).await?)
        }
    }])
}

/// All of a kind, page by page; subnets are those of one VPC and are read elsewhere.
pub async fn list(grpc: &GrpcClient, kind: Kind, show_deleted: bool) -> Result<Vec<Seen>, Status> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let page_size = PAGE;
        page_token = match kind {
            Kind::Instance => {
                let request = v1::ListInstancesRequest { page_size, page_token, show_deleted, ..Default::default() };
                let page = in_time(request, |r| async { instances(grpc).list_instances(r).await }).await?;
                all.extend(page.instances.into_iter().map(seen::instance));
                page.next_page_token
            }
            Kind::Volume => {
                let request = v1::ListVolumesRequest { page_size, page_token, show_deleted, ..Default::default() };
                let page = in_time(request, |r| async { volumes(grpc).list_volumes(r).await }).await?;
                all.extend(page.volumes.into_iter().map(seen::volume));
                page.next_page_token
            }
            Kind::Vpc => {
                let request = v1::ListVpcsRequest { page_size, page_token, show_deleted, ..Default::default() };
                let page = in_time(request, |r| async { vpcs(grpc).list_vpcs(r).await }).await?;
                all.extend(page.vpcs.into_iter().map(seen::vpc));
                page.next_page_token
            }
            Kind::Subnet => return Err(Status::internal("subnets are listed by VPC")),
        };
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// The live subnets of a VPC.
pub async fn list_subnets(grpc: &GrpcClient, vpc: &str) -> Result<Vec<Seen>, Status> {
    let request = v1::ListSubnetsRequest { vpc: vpc.to_owned(), page_size: 500, ..Default::default() };
    let page = in_time(request, |r| async { subnets(grpc).list_subnets(r).await }).await?;
    Ok(page.subnets.into_iter().map(seen::subnet).collect())
}

/// Makes a call with the usual deadline, which the gateway is told.
async fn in_time<M, T, F>(message: M, call: impl FnOnce(Request<M>) -> F) -> Result<T, Status>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    match timeout(DEADLINE + Duration::from_millis(500), call(request)).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}

fn id(target: &Target) -> String {
    target.id.clone().unwrap_or_else(|| target.key.name.clone())
}

fn instances(grpc: &GrpcClient) -> InstanceServiceClient<cloud_testkit::grpc::Service> {
    InstanceServiceClient::new(grpc.service())
}

fn volumes(grpc: &GrpcClient) -> VolumeServiceClient<cloud_testkit::grpc::Service> {
    VolumeServiceClient::new(grpc.service())
}

fn vpcs(grpc: &GrpcClient) -> VpcServiceClient<cloud_testkit::grpc::Service> {
    VpcServiceClient::new(grpc.service())
}

fn subnets(grpc: &GrpcClient) -> SubnetServiceClient<cloud_testkit::grpc::Service> {
    SubnetServiceClient::new(grpc.service())
}
