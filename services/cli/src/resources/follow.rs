//! What can be watched: the current state, then every change.

use std::future::Future;

use cloud_contracts::v1::{
    ApiKey, Event, Host, Image, Instance, InstanceType, Port, Project, Snapshot, Subnet, Volume, Vpc,
    WatchApiKeysRequest, WatchEventsRequest, WatchHostsRequest, WatchImagesRequest, WatchInstanceTypesRequest,
    WatchInstancesRequest, WatchPortsRequest, WatchProjectsRequest, WatchSnapshotsRequest, WatchSubnetsRequest,
    WatchVolumesRequest, WatchVpcsRequest,
};
use futures::{StreamExt, stream::BoxStream};
use tonic::{Request, Status};

use super::Resource;
use crate::connect::Cloud;

/// Where to begin, and with what.
#[derive(Debug, Clone, Default)]
pub struct Begin {
    /// After this; empty: with the current state.
    pub resume_token: String,
    /// Only this one, by id or name; empty: all.
    pub id: String,
}

/// A message of a watch.
#[derive(Debug, Clone)]
pub struct Told<R> {
    /// What happened, as the contract names it.
    pub change: &'static str,
    /// The resource; none when all of the current state was told.
    pub item: Option<R>,
    /// Resumes after this; empty within the current state.
    pub resume_token: String,
}

/// What comes of a watch.
pub type Stream<R> = BoxStream<'static, Result<Told<R>, Status>>;

/// Something that can be watched.
pub trait Follow: Resource + Sized {
    /// What else says which: a subnet's VPC, an event's resource.
    type Of: Clone;
    /// Its field in the contract's messages.
    const FIELD: &'static str;
    /// Begins.
    fn follow(cloud: &Cloud, of: &Self::Of, begin: Begin) -> impl Future<Output = Result<Stream<Self>, Status>>;
}

/// Implements [`Follow`] by a method of a client.
macro_rules! follow {
    ($resource:ty, $field:ident, $client:ident.$method:ident, |$of:ident: $of_type:ty, $begin:ident| $request:expr) => {
        impl Follow for $resource {
            type Of = $of_type;
            const FIELD: &'static str = stringify!($field);

            async fn follow(cloud: &Cloud, $of: &$of_type, $begin: Begin) -> Result<Stream<Self>, Status> {
                // It has no deadline: it goes on.
                let messages = cloud.$client().$method(Request::new($request)).await?.into_inner();
                let told = messages.map(|message| {
                    message.map(|message| Told {
                        change: message.change().as_str_name(),
                        item: message.$field,
                        resume_token: message.resume_token,
                    })
                });
                Ok(told.boxed())
            }
        }
    };
    ($resource:ty, $field:ident, $client:ident.$method:ident, $request:ident) => {
        follow!($resource, $field, $client.$method, |_of: (), begin| $request {
            resume_token: begin.resume_token,
            id: begin.id,
            ..Default::default()
        });
    };
}

follow!(Instance, instance, instances.watch_instances, WatchInstancesRequest);
follow!(InstanceType, instance_type, types.watch_instance_types, WatchInstanceTypesRequest);
follow!(Volume, volume, volumes.watch_volumes, WatchVolumesRequest);
follow!(Snapshot, snapshot, snapshots.watch_snapshots, WatchSnapshotsRequest);
follow!(Image, image, images.watch_images, WatchImagesRequest);
follow!(Vpc, vpc, vpcs.watch_vpcs, WatchVpcsRequest);
follow!(Port, port, ports.watch_ports, WatchPortsRequest);
follow!(Host, host, hosts.watch_hosts, WatchHostsRequest);
follow!(ApiKey, api_key, api_keys.watch_api_keys, WatchApiKeysRequest);
follow!(Project, project, projects.watch_projects, WatchProjectsRequest);
follow!(Subnet, subnet, subnets.watch_subnets, |vpc: String, begin| WatchSubnetsRequest {
    resume_token: begin.resume_token,
    id: begin.id,
    vpc: vpc.clone(),
    ..Default::default()
});
follow!(Event, event, events.watch_events, |of: OfEvents, begin| WatchEventsRequest {
    resume_token: begin.resume_token,
    kind: of.kind.clone(),
    resource_id: of.resource.clone(),
    ..Default::default()
});

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct OfEvents {
    /// Only of this kind of resource; empty: all.
    pub kind: String,
    /// Only of this resource, by id; empty: all.
    pub resource: String,
}
