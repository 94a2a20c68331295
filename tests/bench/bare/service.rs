//! The bare tonic handler: one method of `cloud.v1.InstanceService`, as generated code would route to it.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use cloud_contracts::v1::{GetInstanceRequest, Instance};
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
};
use tonic_prost::ProstCodec;

use super::Read;

/// Answers GetInstance with one message after one read.
#[derive(Debug, Clone)]
pub struct Bare {
    pub read: Read,
    pub instance: Instance,
}

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl UnaryService<GetInstanceRequest> for Bare {
    type Response = Instance;
    type Future = Answer<Result<Response<Instance>, Status>>;

    fn call(&mut self, _request: Request<GetInstanceRequest>) -> Self::Future {
        let Self { read, instance } = self.clone();
        Box::pin(async move {
            read.once().await.map_err(|error| Status::internal(error.to_string()))?;
            Ok(Response::new(instance))
        })
    }
}

impl tower::Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(method, request).await) })
    }
}

impl NamedService for Bare {
    const NAME: &'static str = "cloud.v1.InstanceService";
}
