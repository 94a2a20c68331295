//! What an agent says of another host, and files of somebody else's.

use std::{fs, time::Duration};

use cloud_contracts::agent::{
    AgentRole, HeartbeatRequest, HeartbeatsRequest, RegisterRequest, RenewRequest,
    host_service_client::HostServiceClient,
};
use cloud_domain::{CloudId, Daemon, HostId, Identity};
use cloud_service_kit::{
    channel::connect_lazy_by,
    tls::{Credentials, Expect, client_config, request},
};
use futures::stream;
use tonic::Code;

use crate::{
    ca::{Ca, agent, client, connect},
    support::{Cloud, Machine, becomes},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_heard_only_as_the_host_and_the_role_that_it_is() -> anyhow::Result<()> {
    let cloud = Cloud::start(&[]).await?;
    let (h1, h2) = (Machine::new(&cloud, "h1")?, Machine::new(&cloud, "h2")?);
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    assert!(h2.join(&cloud.one().await?, &[]).await?.ok);
    let tls = client_config(&Credentials::new(h1.credentials("storage").load()?), Expect::Gateway)?;
    let mut client = HostServiceClient::new(connect_lazy_by(&cloud.agents.parse()?, Some(tls)));
    let session = uuid::Uuid::new_v4().to_string();
    let register = |host_id: String, role: AgentRole, endpoint: &str| RegisterRequest {
        host_id,
        host_name: "h1".into(),
        role: role.into(),
        session_id: session.clone(),
        endpoint: endpoint.into(),
        agent_version: "0.1.0".into(),
        boot_id: String::new(),
        capacity: None,
    };
    let (own, other) = (h1.host_id(), h2.host_id());
    for (host, role) in [(&other, AgentRole::Storage), (&own, AgentRole::Compute), (&own, AgentRole::Network)] {
        let refused = client.register(register(host.clone(), role, "127.0.0.1:1")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        let beat = HeartbeatRequest {
            host_id: host.clone(),
            role: role.into(),
            session_id: session.clone(),
            ..HeartbeatRequest::default()
        };
        assert_eq!(client.heartbeat(beat.clone()).await.unwrap_err().code(), Code::PermissionDenied);
        // Also where the stream's first was its own.
        let first = HeartbeatRequest { host_id: own.clone(), role: AgentRole::Storage.into(), ..beat.clone() };
        let mut answers = client
            .heartbeats(stream::iter([first, beat].map(|beat| HeartbeatsRequest { heartbeat: Some(beat) })))
            .await?
            .into_inner();
        assert!(
            answers.message().await?.and_then(|answer| answer.heartbeat).is_some_and(|answer| answer.register_again)
        );
        assert_eq!(answers.message().await.unwrap_err().code(), Code::PermissionDenied);
    }
    let socket = client.register(register(own.clone(), AgentRole::Storage, "unix:/run/x.sock")).await.unwrap_err();
    assert_eq!(socket.code(), Code::InvalidArgument, "a socket of the gateway's own machine");
    client.register(register(own.clone(), AgentRole::Storage, "127.0.0.1:1")).await?;
    // The identity of a new certificate is that of the old one, whatever the request says.
    let key = request::new_key()?;
    let renewed = client.renew(RenewRequest { certificate_request: request::certificate_request(&key)? }).await?;
    let renewed = renewed.into_inner();
    let material = cloud_service_kit::tls::Material::from_pem(&renewed.certificate, &key, &renewed.ca_certificate)?;
    assert_eq!(material.identity, h1.credentials("storage").load()?.identity);
    let garbage = client.renew(RenewRequest { certificate_request: "x".into() }).await.unwrap_err();
    assert_eq!(garbage.code(), Code::InvalidArgument);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_calls_no_agent_but_the_one_it_means() -> anyhow::Result<()> {
    // h1's storage-agent is registered at an address where h2's answers.
    let cloud = Cloud::start(&[]).await?;
    let (h1, h2) = (Machine::new(&cloud, "h1")?, Machine::new(&cloud, "h2")?);
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    assert!(h2.join(&cloud.one().await?, &[]).await?.ok);
    let _agent = h2.storage_agent()?;
    cloud.logs(&["inventory taken", "host=h2", "role=storage"]).await?;
    let tls = client_config(&Credentials::new(h1.credentials("storage").load()?), Expect::Gateway)?;
    let mut client = HostServiceClient::new(connect_lazy_by(&cloud.agents.parse()?, Some(tls)));
    let request = RegisterRequest {
        host_id: h1.host_id(),
        host_name: "h1".into(),
        role: AgentRole::Storage.into(),
        session_id: uuid::Uuid::new_v4().to_string(),
        endpoint: h2.storage_address(),
        agent_version: "0.1.0".into(),
        boot_id: String::new(),
        capacity: None,
    };
    client.register(request).await?;
    cloud.logs(&["a certificate was refused", &h2.host_id()]).await?;
    assert_eq!(cloud.logged(&["inventory taken", "host=h1"]), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn external_files_are_taken_over_when_they_change() -> anyhow::Result<()> {
    let (cloud, host, ca, other) = (CloudId::random(), HostId::random(), Ca::new(), Ca::new());
    let dir = tempfile::tempdir()?;
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text);
    let identity = agent(cloud, host, Daemon::Storage);
    let first = ca.issue(identity);
    write("own.pem", &first.certificate)?;
    write("own.key", &first.key)?;
    write("ca.pem", &ca.pem())?;
    write("host-id", &host.to_string())?;
    let address = format!("127.0.0.1:{}", cloud_testkit::free_port()?);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let args = [
        format!("--listen={address}"),
        format!("--gateway=unix:{}", file("nobody.sock")),
        format!("--state-dir={}", dir.path().display()),
        format!("--pool-dir={}", file("pool")),
        format!("--host-id-file={}", file("host-id")),
        "--host-name=h1".to_owned(),
        format!("--tls-cert={}", file("own.pem")),
        format!("--tls-key={}", file("own.key")),
        format!("--tls-ca={}", file("ca.pem")),
        "--tls-external".to_owned(),
    ];
    let program = cloud_testkit::process::binary("cloud-storage-agent")?;
    let log = dir.path().join("log");
    let _agent = cloud_testkit::DaemonProcess::spawn(&program, &args, &[], &log)?;
    let shown = async || -> anyhow::Result<Vec<u8>> {
        let gateway = client(Some(&ca.issue(Identity::Gateway { cloud })));
        let stream = connect(&address, gateway).await?;
        Ok(stream.get_ref().1.peer_certificates().unwrap()[0].as_ref().to_vec())
    };
    cloud_testkit::until("the agent to serve", Duration::from_secs(20), || async {
        Ok(shown().await.map(drop).map_err(|e| format!("{e:#} {}", fs::read_to_string(&log).unwrap_or_default())))
    })
    .await?;
    let before = shown().await?;
    // Files of another host are not taken over.
    let wrong = ca.issue(agent(cloud, HostId::random(), Daemon::Storage));
    write("own.key", &wrong.key)?;
    write("own.pem", &wrong.certificate)?;
    becomes("the wrong files to be refused", Duration::from_secs(10), || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if text.contains("the new files cannot be used") { Ok(()) } else { Err(text) }
    })
    .await?;
    assert_eq!(shown().await?, before);
    let second = ca.issue(identity);
    write("own.key", &second.key)?;
    write("own.pem", &second.certificate)?;
    cloud_testkit::until("the new certificate to be shown", Duration::from_secs(10), || async {
        Ok(if shown().await? == before { Err("the old one is") } else { Ok(()) })
    })
    .await?;
    // And authorities: with another one, the gateway of the first is a stranger.
    write("ca.pem", &other.pem())?;
    cloud_testkit::until("the first authority to be forgotten", Duration::from_secs(10), || async {
        let gateway = client(Some(&ca.issue(Identity::Gateway { cloud })));
        let answer = crate::ca::call(&address, gateway, "/grpc.health.v1.Health/Check").await;
        Ok(if answer.is_err() { Ok(()) } else { Err("it counts") })
    })
    .await?;
    let gateway = client(Some(&other.issue(Identity::Gateway { cloud })));
    assert!(crate::ca::call(&address, gateway, "/grpc.health.v1.Health/Check").await?.starts_with("200"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_an_agent_neither_listens_nor_calls_beyond_loopback() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let program = cloud_testkit::process::binary("cloud-storage-agent")?;
    for (flags, why) in [
        (["--listen=0.0.0.0:0", "--gateway=unix:/none"], "can be reached from other machines"),
        (["--listen=127.0.0.1:0", "--gateway=192.0.2.1:8443"], "cloud-agent-join"),
    ] {
        let log = dir.path().join("log");
        let mut args: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        args.push(format!("--state-dir={}", dir.path().display()));
        args.push(format!("--pool-dir={}", dir.path().join("pool").display()));
        args.push(format!("--host-id-file={}", dir.path().join("host-id").display()));
        args.push("--host-name=h1".to_owned());
        let _agent = cloud_testkit::DaemonProcess::spawn(&program, &args, &[], &log)?;
        becomes("the agent to refuse", Duration::from_secs(20), || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains(why) { Ok(()) } else { Err(text) }
        })
        .await?;
    }
    Ok(())
}
