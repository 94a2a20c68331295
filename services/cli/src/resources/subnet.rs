//! Subnets. They live in a VPC, which every call names.

use cloud_contracts::v1::{DeleteSubnetRequest, GetSubnetRequest, ListSubnetsRequest, Subnet};
use tonic::Status;

use super::{Delete, Fetch, Page, PageOf, Resource, View, labels, times};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

impl Resource for Subnet {
    const KIND: &'static str = "subnet";
    const PLURAL: &'static str = "subnets";
    const COLUMNS: &'static [&'static str] = &["NAME", "VPC", "CIDR", "GATEWAY", "AGE", "ID"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.vpc.clone(),
            self.cidr.clone(),
            self.gateway.clone(),
            human::age(self.created_at.as_ref(), view.now),
            self.id.clone(),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Project", self.project.clone()),
            ("VPC", self.vpc.clone()),
            ("CIDR", self.cidr.clone()),
            ("Gateway", self.gateway.clone()),
            ("DNS servers", self.dns_servers.join(", ")),
            ("Labels", labels(&self.labels)),
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

/// A VPC, by id or name.
pub type InVpc = String;

impl Fetch for Subnet {
    type Scope = InVpc;
    async fn fetch(cloud: &Cloud, vpc: &InVpc, id: &str) -> Result<Self, Status> {
        let request = GetSubnetRequest { vpc: vpc.clone(), id: id.to_owned() };
        Ok(cloud.subnets().get_subnet(ask(request)).await?.into_inner())
    }
}

impl Delete for Subnet {
    async fn delete(cloud: &Cloud, vpc: &InVpc, id: &str) -> Result<Self, Status> {
        let request = DeleteSubnetRequest { vpc: vpc.clone(), id: id.to_owned(), ..Default::default() };
        Ok(cloud.subnets().delete_subnet(ask(request)).await?.into_inner())
    }
}

/// A page of a VPC's subnets.
pub async fn page(cloud: &Cloud, vpc: &str, page: PageOf) -> Page<Subnet> {
    let request = ListSubnetsRequest {
        vpc: vpc.to_owned(),
        page_size: page.size,
        page_token: page.token,
        filter: page.filter,
        order_by: page.order_by,
        show_deleted: page.show_deleted,
    };
    let answer = cloud.subnets().list_subnets(ask(request)).await?.into_inner();
    Ok((answer.subnets, answer.next_page_token))
}
