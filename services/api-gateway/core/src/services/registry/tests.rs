//! Who lives.
use super::*;

fn offer(registry: &HostRegistry, host: HostId) {
    let capacity = HostCapacity { vcpus: 2, ..HostCapacity::default() };
    registry.offers(host, AgentRole::Compute, &capacity);
}

fn agent() -> AgentRef {
    AgentRef { endpoint: "unix:/x".into(), session: SessionId::random() }
}

#[tokio::test(start_paused = true)]
async fn a_host_is_up_while_all_three_agents_give_signs_of_life() {
    let registry = HostRegistry::new(Duration::from_secs(10));
    let host = HostId::random();
    let agents: Vec<_> = AgentRole::ALL.into_iter().map(|r| (r, agent())).collect();
    for (role, a) in &agents[..2] {
        registry.registered(host, "h1", *role, a.clone(), "0.1.0");
    }
    offer(&registry, host);
    assert_eq!(registry.state(host).1, "the network-agent has not registered");
    registry.registered(host, "h1", AgentRole::Network, agents[2].1.clone(), "0.1.0");
    assert!(registry.is_up(host));
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(registry.heartbeat(host, AgentRole::Compute, agents[0].1.session, ""));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(
        registry.state(host).1,
        "the storage-agent has been silent for 11 s; the network-agent has been silent for 11 s"
    );
    assert!(!registry.heartbeat(host, AgentRole::Compute, SessionId::random(), ""), "another session must register");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_blames_nobody() {
    let registry = HostRegistry::new(Duration::from_secs(10));
    let host = HostId::random();
    for role in AgentRole::ALL {
        registry.registered(host, "h1", role, agent(), "0.1.0");
    }
    offer(&registry, host);
    registry.pulse();
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(registry.is_up(host), "before it notices that it stood still");
    registry.pulse();
    assert!(registry.is_up(host), "and after");
    for _ in 0..11 {
        tokio::time::advance(Duration::from_secs(1)).await;
        registry.pulse();
    }
    assert!(!registry.is_up(host) && registry.silence(host, AgentRole::Compute).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_broken_backend_makes_a_host_unreachable_and_is_named() {
    let registry = HostRegistry::new(Duration::from_secs(10));
    let host = HostId::random();
    for role in AgentRole::ALL {
        let a = agent();
        registry.registered(host, "h1", role, a.clone(), "0.1.0");
        registry.heartbeat(host, role, a.session, if role == AgentRole::Compute { "libvirt is down" } else { "" });
    }
    assert_eq!(
        registry.state(host),
        (HostState::Unreachable, "the compute-agent's backend does not work: libvirt is down".into())
    );
}
