//! The one place that connects: finds the gateway and the key, opens the channel, and hands out the clients.

mod channel;
pub mod key;
mod look;
mod once;
mod places;
mod run_env;
mod settings;

use std::time::Duration;

use cloud_contracts::v1::{
    admin_service_client::AdminServiceClient, api_key_service_client::ApiKeyServiceClient,
    event_service_client::EventServiceClient, host_service_client::HostServiceClient,
    image_service_client::ImageServiceClient, instance_service_client::InstanceServiceClient,
    instance_type_service_client::InstanceTypeServiceClient, port_service_client::PortServiceClient,
    project_service_client::ProjectServiceClient, quota_service_client::QuotaServiceClient,
    snapshot_service_client::SnapshotServiceClient, subnet_service_client::SubnetServiceClient,
    volume_service_client::VolumeServiceClient, vpc_service_client::VpcServiceClient,
};
use tonic::{Request, service::interceptor::InterceptedService, transport::Channel};

use crate::{args::Connection, error::Error};
use channel::Credentials;
pub use look::{Shown, look_at};
use once::Once;
pub use places::Places;
use settings::Settings;
pub use settings::is_loopback;

/// How long an ordinary call may take.
pub const CALL: Duration = Duration::from_secs(30);

/// Lists carry user data, and may be long.
const MAX_ANSWER: usize = 64 << 20;

type Authenticated = Once<InterceptedService<Channel, Credentials>>;

/// The gateway, with everything that its calls need.
#[derive(Debug, Clone)]
pub struct Cloud {
    service: Authenticated,
}

/// One method per service of the contract.
macro_rules! clients {
    ($($method:ident: $client:ident),* $(,)?) => {$(
        pub fn $method(&self) -> $client<Authenticated> {
            $client::new(self.service.clone()).max_decoding_message_size(MAX_ANSWER)
        }
    )*};
}

impl Cloud {
    /// Finds the gateway and the key, and connects.
    pub async fn connect(connection: Connection) -> Result<Self, Error> {
        let given = connection.request_id.clone();
        let settings = Settings::find(connection, &Places::of_this_process())?;
        let channel = channel::open(&settings).await?;
        let service = InterceptedService::new(channel, Credentials::new(&settings)?);
        Ok(Self { service: Once::new(service, given) })
    }

    /// Says so where a request id was given and no change was sent.
    pub fn warn_of_unused_id(&self) {
        if self.service.is_id_unused() {
            eprintln!("warning: --request-id has no effect: this changes nothing");
        }
    }

    clients! {
        admin: AdminServiceClient,
        instances: InstanceServiceClient,
        types: InstanceTypeServiceClient,
        volumes: VolumeServiceClient,
        snapshots: SnapshotServiceClient,
        images: ImageServiceClient,
        vpcs: VpcServiceClient,
        subnets: SubnetServiceClient,
        ports: PortServiceClient,
        hosts: HostServiceClient,
        events: EventServiceClient,
        projects: ProjectServiceClient,
        api_keys: ApiKeyServiceClient,
        quotas: QuotaServiceClient,
    }
}

/// A request that ends after `deadline`, here and on the server.
pub fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// A request with the deadline of an ordinary call.
pub fn ask<T>(message: T) -> Request<T> {
    within(CALL, message)
}
