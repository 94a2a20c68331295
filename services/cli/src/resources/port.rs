//! Ports.

use cloud_contracts::v1::{GetPortRequest, ListPortsRequest, Port};
use tonic::Status;

use super::{Fetch, Listed, Page, PageOf, Resource, View, times};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

impl Resource for Port {
    const KIND: &'static str = "port";
    const PLURAL: &'static str = "ports";
    const COLUMNS: &'static [&'static str] = &["IP", "INSTANCE", "VPC", "SUBNET", "MAC", "HOST", "AGE", "ID"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            self.ip.clone(),
            self.instance.clone(),
            self.vpc.clone(),
            self.subnet.clone(),
            self.mac.clone(),
            self.host.clone(),
            human::age(self.created_at.as_ref(), view.now),
            self.id.clone(),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Id", self.id.clone()),
            ("Project", self.project.clone()),
            ("IP", self.ip.clone()),
            ("MAC", self.mac.clone()),
            ("Instance", self.instance.clone()),
            ("VPC", self.vpc.clone()),
            ("Subnet", self.subnet.clone()),
            ("Host", self.host.clone()),
            ("Security groups", self.security_groups.join(", ")),
        ];
        lines.extend(times(
            view,
            [
                ("Created", self.created_at.as_ref()),
                ("Updated", self.updated_at.as_ref()),
                ("Deleted", self.deleted_at.as_ref()),
            ],
        ));
        lines
    }
}

impl Fetch for Port {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.ports().get_port(ask(GetPortRequest { id: id.to_owned() })).await?.into_inner())
    }
}

impl Listed for Port {
    async fn page(cloud: &Cloud, page: PageOf) -> Page<Self> {
        let request = ListPortsRequest {
            page_size: page.size,
            page_token: page.token,
            filter: page.filter,
            order_by: page.order_by,
        };
        let answer = cloud.ports().list_ports(ask(request)).await?.into_inner();
        Ok((answer.ports, answer.next_page_token))
    }
}
