//! gRPC clients with an API key.

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// Adds the API key to each call.
#[derive(Debug, Clone)]
pub struct WithKey(MetadataValue<Ascii>);

impl Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// What generated clients are made of: `InstanceServiceClient::new(grpc.service())`.
pub type Service = InterceptedService<Channel, WithKey>;

/// A connection with an API key.
#[derive(Debug, Clone)]
pub struct GrpcClient {
    channel: Channel,
    key: WithKey,
}

impl GrpcClient {
    /// Calls over `channel` with `key`.
    ///
    /// # Errors
    /// The key cannot stand in a header.
    pub fn new(channel: Channel, key: &str) -> anyhow::Result<Self> {
        Ok(Self { channel, key: WithKey(format!("Bearer {key}").parse()?) })
    }

    /// For the `new` of a generated client.
    #[must_use]
    pub fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), self.key.clone())
    }
}
