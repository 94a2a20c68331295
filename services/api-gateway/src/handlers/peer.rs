//! Which agent calls, by the certificate of its connection.

use std::sync::Arc;

use axum::{extract::Request as HttpRequest, middleware::Next, response::Response};
use cloud_core::model::AgentRole;
use cloud_domain::HostId;
use cloud_service_kit::{
    Address, ServiceError,
    server::{Connection, Peer as Other},
    service::{error_response, is_grpc},
    tls::{Daemon, Identity, Validity, identity_of, serial_of},
};
use rustls::pki_types::CertificateDer;
use tonic::{Request, Status};

use crate::adapters::agents::TLS;

/// The only method that needs no certificate.
const JOIN: &str = "/cloud.agent.v1.HostService/Join";

/// An agent, as its certificate says.
pub(super) struct Peer {
    pub(super) host: HostId,
    pub(super) role: AgentRole,
    pub(super) serial: String,
    pub(super) certificate: CertificateDer<'static>,
    validity: Validity,
}

/// Lets nobody but who joins call without a certificate, and nobody with one that has ended since the connection was opened.
pub(crate) async fn certified(request: HttpRequest, next: Next) -> Response {
    let grpc = is_grpc(request.headers());
    let connection = request.extensions().get::<Arc<Connection>>();
    let certificate = connection.and_then(|c| c.certificates.first());
    let refusal = match certificate {
        None if request.uri().path() == JOIN => None,
        None => Some(ServiceError::unauthenticated("show the certificate of an agent of this cloud")),
        Some(certificate) if Validity::of(certificate).is_ok_and(|validity| !validity.is_over()) => None,
        Some(_) => Some(ended()),
    };
    match refusal {
        None => next.run(request).await,
        Some(refusal) => error_response(grpc, refusal),
    }
}

fn ended() -> ServiceError {
    ServiceError::unauthenticated("the certificate of this connection has ended: connect with a new one")
}

/// The agent that calls; none where the connection is of this machine, and needs no certificate.
#[allow(clippy::result_large_err)] // tonic's own convention
pub(super) fn peer<M>(request: &Request<M>) -> Result<Option<Peer>, Status> {
    let nobody = || Status::from(ServiceError::unauthenticated("show the certificate of an agent of this cloud"));
    let Some(connection) = request.extensions().get::<Arc<Connection>>().filter(|c| c.tls) else { return Ok(None) };
    let certificate = connection.certificates.first().ok_or_else(nobody)?;
    let Ok(Identity::Agent { host, daemon, .. }) = identity_of(certificate) else { return Err(nobody()) };
    let role = match daemon {
        Daemon::Compute => AgentRole::Compute,
        Daemon::Storage => AgentRole::Storage,
        Daemon::Network => AgentRole::Network,
    };
    let serial = serial_of(certificate).map_err(|_| nobody())?;
    let validity = Validity::of(certificate).map_err(|_| nobody())?;
    Ok(Some(Peer { host, role, serial, certificate: certificate.clone(), validity }))
}

/// Where a call comes from.
pub(super) fn source<M>(request: &Request<M>) -> String {
    match request.extensions().get::<Arc<Connection>>().map(|c| c.peer.clone()) {
        Some(Other::Tcp(Some(address))) => address.ip().to_string(),
        Some(Other::Unix { .. }) => "unix".to_owned(),
        Some(Other::Tcp(None)) | None => String::new(),
    }
}

impl Peer {
    /// Refuses whoever's certificate has ended since the call began.
    #[allow(clippy::result_large_err)] // tonic's own convention
    pub(super) fn is_valid(&self) -> Result<(), Status> {
        if self.validity.is_over() { Err(ended().into()) } else { Ok(()) }
    }

    /// Refuses whoever says to be another host or another agent.
    #[allow(clippy::result_large_err)] // tonic's own convention
    pub(super) fn is(&self, host: HostId, role: AgentRole) -> Result<(), Status> {
        if (self.host, self.role) == (host, role) {
            return Ok(());
        }
        let message = format!(
            "the certificate is for the {}-agent of host {}, and the call is of the {}-agent of host {host}",
            self.role.as_str(),
            self.host,
            role.as_str()
        );
        Err(ServiceError::permission_denied(message).with_reason("WRONG_IDENTITY").into())
    }

    /// Where the agent is to be reached: over the network, with TLS. A unix socket would be one of the gateway's own machine.
    #[allow(clippy::result_large_err)] // tonic's own convention
    pub(super) fn endpoint(&self, said: &str) -> Result<String, Status> {
        match said.parse() {
            Ok(Address::Tcp { .. }) => Ok(format!("{TLS}{}", said.trim_start_matches("tcp:"))),
            _ => Err(ServiceError::invalid(
                "endpoint",
                "must be host:port: agents of other machines are reached over TLS",
            )
            .into()),
        }
    }
}
