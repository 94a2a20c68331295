//! Asking the gateway.

use std::time::Duration;

use cloud_contracts::agent::{JoinRequest, host_service_client::HostServiceClient};
use cloud_domain::{Daemon, HostId, HostName, join::JoinToken};
use cloud_service_kit::{
    Address,
    channel::connect_lazy_by,
    error::chain,
    tls::{Material, pinned_config, request},
};
use tonic::{Code, Request, Status};

use crate::error::Error;

/// How long a gateway may take to answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// The keys of the three agents, in PEM.
pub type Keys = [(Daemon, String); 3];

/// What came of it.
#[derive(Debug)]
pub struct Joined {
    /// The cloud's id.
    pub cloud: String,
    /// The host's id.
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// The certificates of the three agents, in PEM.
    pub certificates: [(Daemon, String); 3],
    /// The authorities to trust, in PEM.
    pub authorities: String,
}

/// Makes keys and has the first gateway that answers sign them.
pub async fn join(token: &JoinToken, name: &HostName, host: Option<HostId>) -> Result<(Keys, Joined), Error> {
    let keys = [key(Daemon::Compute)?, key(Daemon::Storage)?, key(Daemon::Network)?];
    let requests = keys.iter().map(|(daemon, key)| Ok((daemon.role().to_owned(), request::certificate_request(key)?)));
    let message = JoinRequest {
        token: token.to_string(),
        host_name: name.to_string(),
        certificate_requests: requests.collect::<Result<_, Error>>()?,
        host_id: host.map(|id| id.to_string()).unwrap_or_default(),
    };
    let tls = pinned_config(token.authorities.clone())?;
    let mut refusal = Error::Odd("no gateway");
    for gateway in &token.gateways {
        let address: Address = gateway.parse()?;
        let mut client = HostServiceClient::new(connect_lazy_by(&address, Some(tls.clone())));
        let mut request = Request::new(message.clone());
        request.set_timeout(DEADLINE);
        match client.join(request).await {
            Ok(answer) => return read(answer.into_inner(), keys),
            Err(status) => {
                // One that does not answer, or is another cloud's, was not told the token.
                let again = matches!(status.code(), Code::Unavailable);
                refusal = Error::Refused { gateway: gateway.clone(), why: why(&status) };
                if !again {
                    break;
                }
            }
        }
    }
    Err(refusal)
}

fn key(daemon: Daemon) -> Result<(Daemon, String), Error> {
    Ok((daemon, request::new_key()?))
}

fn why(status: &Status) -> String {
    let source = std::error::Error::source(status).map(chain);
    match source {
        Some(source) if source.contains("UnknownIssuer") => format!(
            "its certificate does not come from the authority whose fingerprint is in the token, so it was told nothing: is that address this \
             cloud's? ({source})"
        ),
        Some(source) => format!("{}: {source}", status.message()),
        None => status.message().to_owned(),
    }
}

fn read(answer: cloud_contracts::agent::JoinResponse, keys: Keys) -> Result<(Keys, Joined), Error> {
    let mut certificates = answer.certificates;
    let mut take = |daemon: Daemon| {
        let text = certificates.remove(daemon.role()).ok_or(Error::Odd("no certificate for one of the agents"))?;
        Ok::<_, Error>((daemon, text))
    };
    let certificates = [take(Daemon::Compute)?, take(Daemon::Storage)?, take(Daemon::Network)?];
    // What is written is known to work.
    for ((_, key), (_, certificate)) in keys.iter().zip(&certificates) {
        Material::from_pem(certificate, key, &answer.ca_certificate)?;
    }
    let joined = Joined {
        cloud: answer.cloud_id,
        host: answer.host_id.parse().map_err(|_| Error::Odd("a host id that is none"))?,
        name: answer.host_name,
        certificates,
        authorities: answer.ca_certificate,
    };
    Ok((keys, joined))
}
