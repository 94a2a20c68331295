-- A database of release 0.1.0 on SQLite, with a cloud's data in it. Never edited: what is released stays.
BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'first light','2026-11-23 22:52:15',1,X'AFC43919E298322606DC49A7757D1338A7A3A267DF266B6C4A1A18E8B1BA8BA9E29755E59A45A79D9866AB3DE95F9B73',2522512);
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO "api_keys" VALUES('8062c9f0-98b4-4ec5-af44-9da3fc934883','90fd9b99-97c0-4cd9-9022-46e92d89f198','admin',1,1795474335998552,1795474335998552,NULL,'{"meta":{"id":"8062c9f0-98b4-4ec5-af44-9da3fc934883","project":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project_name":"default","name":"admin","version":1,"created_at":1795474335998552,"updated_at":1795474335998552,"deleted_at":null,"labels":{}},"prefix":"tck_6f6b7c","hash":"efff4d918be28dc1b3ab1b9cb5054c02f488c41c36a2d1bfdda765a12174ffb0","role":"operator","expires_at":null,"revoked_at":null}','efff4d918be28dc1b3ab1b9cb5054c02f488c41c36a2d1bfdda765a12174ffb0');
CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO "counters" VALUES('revision',8);
INSERT INTO "counters" VALUES('vni',4097);
CREATE TABLE events (
    revision BIGINT PRIMARY KEY, id TEXT NOT NULL, at BIGINT NOT NULL, project_id TEXT NOT NULL, kind TEXT NOT NULL,
    resource_id TEXT NOT NULL, resource_name TEXT NOT NULL, action TEXT NOT NULL, actor TEXT NOT NULL,
    source TEXT NOT NULL, outcome TEXT NOT NULL, message TEXT NOT NULL, request_id TEXT NOT NULL
);
INSERT INTO "events" VALUES(1,'6dd6264a-64ef-4eb6-80f7-8c6c9d5f9bf8',1795474336152630,'00000000-0000-0000-0000-000000000000','host','17361e5d-a6c0-4526-a99f-3c3c765ca47a','vm','host.join','system','','OK','','');
INSERT INTO "events" VALUES(2,'8d74ef80-4c8a-439b-a6dc-693828d14c05',1795474337832387,'90fd9b99-97c0-4cd9-9022-46e92d89f198','image','b94f4994-8bb5-499f-b6f3-37ddcbfc90d2','tiny','image.upload','admin','127.0.0.1','OK','','cdb9bf70-a4db-456e-bd48-1e24e4e098c0');
INSERT INTO "events" VALUES(3,'da602e6c-3b10-45d3-99f6-91022462c426',1795474338654635,'90fd9b99-97c0-4cd9-9022-46e92d89f198','instance','aff15850-4b69-4301-9acc-fa66761b8e0e','db-01','instance.launch','admin','127.0.0.1','OK','','747b638d-97b9-4c92-9731-99c57e158a0e');
INSERT INTO "events" VALUES(4,'b3362abf-3dff-49c7-bce1-e9dc8dcf4d8c',1795474339380027,'90fd9b99-97c0-4cd9-9022-46e92d89f198','instance','aff15850-4b69-4301-9acc-fa66761b8e0e','db-01','instance.running','system','','OK','','');
INSERT INTO "events" VALUES(5,'b7897e56-8adb-4891-a1b0-3e10c533c018',1795474378446482,'90fd9b99-97c0-4cd9-9022-46e92d89f198','instance','732073af-03c2-402e-86f9-cd5bb9b8a336','web-01','instance.launch','admin','127.0.0.1','OK','','08fd65bb-7b74-4bf8-bace-0db7dbe8bc06');
INSERT INTO "events" VALUES(6,'9615e338-a358-43f8-91d1-5d38df25b9e2',1795474378835432,'90fd9b99-97c0-4cd9-9022-46e92d89f198','instance','732073af-03c2-402e-86f9-cd5bb9b8a336','web-01','instance.running','system','','OK','','');
INSERT INTO "events" VALUES(7,'95737f18-0da6-48a1-be2c-1f8565f9272c',1795474390508529,'90fd9b99-97c0-4cd9-9022-46e92d89f198','instance','732073af-03c2-402e-86f9-cd5bb9b8a336','web-01','instance.stop','admin','127.0.0.1','OK','','5f255231-a09a-4a7f-a0e8-1f4869abbdda');
INSERT INTO "events" VALUES(8,'57481690-83e1-458c-871d-53325699e0e5',1795474392167330,'90fd9b99-97c0-4cd9-9022-46e92d89f198','instance','732073af-03c2-402e-86f9-cd5bb9b8a336','web-01','instance.stopped','system','','OK','','');
CREATE TABLE hosts (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    vcpus_total BIGINT NOT NULL DEFAULT 0, vcpus_used BIGINT NOT NULL DEFAULT 0,
    memory_total BIGINT NOT NULL DEFAULT 0, memory_used BIGINT NOT NULL DEFAULT 0
);
INSERT INTO "hosts" VALUES('17361e5d-a6c0-4526-a99f-3c3c765ca47a','00000000-0000-0000-0000-000000000000','vm',3,1795474336151966,1795474336395496,NULL,'{"meta":{"id":"17361e5d-a6c0-4526-a99f-3c3c765ca47a","project":"00000000-0000-0000-0000-000000000000","project_name":"","name":"vm","version":3,"created_at":1795474336151966,"updated_at":1795474336395496,"deleted_at":null,"labels":{}},"agents":{"compute":{"endpoint":"unix:/var/lib/thecloud/compute.sock","session":"b208ec9f-a25b-4807-8d76-f468a39dfcd6","version":"0.1.0","registered_at":1795474336395356},"storage":{"endpoint":"unix:/var/lib/thecloud/storage.sock","session":"9b6e44e1-f6f0-46d0-8eb0-5d95273a4052","version":"0.1.0","registered_at":1795474336151969},"network":{"endpoint":"unix:/var/lib/thecloud/network.sock","session":"364c1054-b0c8-42fd-a9d6-501d3331842d","version":"0.1.0","registered_at":1795474336154277}},"capacity":{"vcpus":2,"memory_mib":20826,"accelerator":"tcg","hypervisor":"QEMU 10.0.2, libvirt 11.3.0","architecture":"x86_64","pools":[{"name":"default","backend":"directory","total_bytes":270553174016,"free_bytes":25615683584}],"datapath":"netdev","switch_version":"Open vSwitch 3.1.0","tunnel_address":""},"boot_id":"0a5d196b-4941-416d-a562-b2949cf1e88f"}',16,2,20314,256);
CREATE TABLE images (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    status TEXT NOT NULL, public BIGINT NOT NULL
);
INSERT INTO "images" VALUES('b94f4994-8bb5-499f-b6f3-37ddcbfc90d2','90fd9b99-97c0-4cd9-9022-46e92d89f198','tiny',1,1795474337831569,1795474337831569,NULL,'{"meta":{"id":"b94f4994-8bb5-499f-b6f3-37ddcbfc90d2","project":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project_name":"default","name":"tiny","version":1,"created_at":1795474337831569,"updated_at":1795474337831569,"deleted_at":null,"labels":{}},"visibility":"PUBLIC","status":"READY","status_reason":"","source":"upload","format":"qcow2","sha256":"84d18a330786356df55b46db4bce817adcc8e8f588ea30208797b5c01bd54d94","size_bytes":18743296,"virtual_size_bytes":118489088}','READY',1);
CREATE TABLE instance_types (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL
);
INSERT INTO "instance_types" VALUES('76b70ddd-9444-4269-8f06-16850f86ddbf','00000000-0000-0000-0000-000000000000','tiny',1,1795474335997919,1795474335997919,NULL,'{"meta":{"id":"76b70ddd-9444-4269-8f06-16850f86ddbf","project":"00000000-0000-0000-0000-000000000000","project_name":"","name":"tiny","version":1,"created_at":1795474335997919,"updated_at":1795474335997919,"deleted_at":null,"labels":{}},"vcpus":1,"memory_mib":128,"disk":1,"is_default":false}');
INSERT INTO "instance_types" VALUES('ce74e9d8-5f11-46db-9882-d91366beec9b','00000000-0000-0000-0000-000000000000','small',1,1795474335997985,1795474335997985,NULL,'{"meta":{"id":"ce74e9d8-5f11-46db-9882-d91366beec9b","project":"00000000-0000-0000-0000-000000000000","project_name":"","name":"small","version":1,"created_at":1795474335997985,"updated_at":1795474335997985,"deleted_at":null,"labels":{}},"vcpus":1,"memory_mib":512,"disk":5,"is_default":true}');
INSERT INTO "instance_types" VALUES('438038ab-992a-4203-9e4f-9519038f5979','00000000-0000-0000-0000-000000000000','medium',1,1795474335998016,1795474335998016,NULL,'{"meta":{"id":"438038ab-992a-4203-9e4f-9519038f5979","project":"00000000-0000-0000-0000-000000000000","project_name":"","name":"medium","version":1,"created_at":1795474335998016,"updated_at":1795474335998016,"deleted_at":null,"labels":{}},"vcpus":2,"memory_mib":2048,"disk":20,"is_default":false}');
INSERT INTO "instance_types" VALUES('0e9d272d-6cc8-4a35-9fdc-6bedb7dcb353','00000000-0000-0000-0000-000000000000','large',1,1795474335998042,1795474335998042,NULL,'{"meta":{"id":"0e9d272d-6cc8-4a35-9fdc-6bedb7dcb353","project":"00000000-0000-0000-0000-000000000000","project_name":"","name":"large","version":1,"created_at":1795474335998042,"updated_at":1795474335998042,"deleted_at":null,"labels":{}},"vcpus":4,"memory_mib":8192,"disk":40,"is_default":false}');
INSERT INTO "instance_types" VALUES('29596c4b-6ec8-42ae-b48c-6d3b42df7cfa','00000000-0000-0000-0000-000000000000','xlarge',1,1795474335998068,1795474335998068,NULL,'{"meta":{"id":"29596c4b-6ec8-42ae-b48c-6d3b42df7cfa","project":"00000000-0000-0000-0000-000000000000","project_name":"","name":"xlarge","version":1,"created_at":1795474335998068,"updated_at":1795474335998068,"deleted_at":null,"labels":{}},"vcpus":8,"memory_mib":16384,"disk":80,"is_default":false}');
CREATE TABLE instances (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    host_id TEXT NOT NULL, status TEXT NOT NULL
);
INSERT INTO "instances" VALUES('aff15850-4b69-4301-9acc-fa66761b8e0e','90fd9b99-97c0-4cd9-9022-46e92d89f198','db-01',2,1795474338653913,1795474339379620,NULL,'{"meta":{"id":"aff15850-4b69-4301-9acc-fa66761b8e0e","project":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project_name":"default","name":"db-01","version":2,"created_at":1795474338653913,"updated_at":1795474339379620,"deleted_at":null,"labels":{}},"image":"b94f4994-8bb5-499f-b6f3-37ddcbfc90d2","image_name":"tiny","instance_type":"tiny","vcpus":1,"memory_mib":128,"status":"RUNNING","status_reason":"","desired":"RUNNING","host":"17361e5d-a6c0-4526-a99f-3c3c765ca47a","host_name":"vm","incarnation":"1fc215bc-09e9-4b70-8bc1-c7355133ef86","boot_generation":0,"booted_generation":0,"nics":[{"port":"fec6c4f1-f0fa-4c10-91b4-d29c5f7b6485","vpc":"200b0d2a-bf51-4c53-86e8-a6e70eea8ce0","vpc_name":"default","subnet":"a10e9791-b5f0-471d-aa94-fac3cd888870","subnet_name":"default","mac":"52:54:00:7b:64:85","ip":"10.0.0.2"}],"disks":[{"volume":"518c05b7-7bce-4266-bfd8-0a11cafd027c","name":"root-aff15850-4b69-4301-9acc-fa66761b8e0e","root":true,"size":1}],"ssh_keys":[],"user_data":"","started_at":1795474339368000,"has_run":true,"holds_capacity":true,"stop_requested_at":null,"start_deadline":null}','17361e5d-a6c0-4526-a99f-3c3c765ca47a','RUNNING');
INSERT INTO "instances" VALUES('732073af-03c2-402e-86f9-cd5bb9b8a336','90fd9b99-97c0-4cd9-9022-46e92d89f198','web-01',4,1795474378445771,1795474392167020,NULL,'{"meta":{"id":"732073af-03c2-402e-86f9-cd5bb9b8a336","project":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project_name":"default","name":"web-01","version":4,"created_at":1795474378445771,"updated_at":1795474392167020,"deleted_at":null,"labels":{}},"image":"b94f4994-8bb5-499f-b6f3-37ddcbfc90d2","image_name":"tiny","instance_type":"tiny","vcpus":1,"memory_mib":128,"status":"STOPPED","status_reason":"","desired":"STOPPED","host":"17361e5d-a6c0-4526-a99f-3c3c765ca47a","host_name":"vm","incarnation":"a2203459-69a7-4843-a7eb-3c1353df768d","boot_generation":0,"booted_generation":0,"nics":[{"port":"a817147c-90f7-4f00-be77-59c50edcc84a","vpc":"200b0d2a-bf51-4c53-86e8-a6e70eea8ce0","vpc_name":"default","subnet":"a10e9791-b5f0-471d-aa94-fac3cd888870","subnet_name":"default","mac":"52:54:00:dc:c8:4a","ip":"10.0.0.3"}],"disks":[{"volume":"98ce5c60-f5d6-45d0-8bfd-7aa5b9c7b635","name":"root-732073af-03c2-402e-86f9-cd5bb9b8a336","root":true,"size":1}],"ssh_keys":[],"user_data":"#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9 10; do ping -c1 -W1 10.0.0.2 && break; done","started_at":null,"has_run":true,"holds_capacity":true,"stop_requested_at":null,"start_deadline":null}','17361e5d-a6c0-4526-a99f-3c3c765ca47a','STOPPED');
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "meta" VALUES('cloud_id','ef6f4448-969b-4fc6-a31d-fb153f88f29a');
INSERT INTO "meta" VALUES('epoch','1');
INSERT INTO "meta" VALUES('secret','b705ee60e4a515f38e7971b8918209b7adbed3e5054de6ad0f3e81fec8805507');
CREATE TABLE ports (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    vpc_id TEXT NOT NULL, subnet_id TEXT NOT NULL, instance_id TEXT NOT NULL, host_id TEXT NOT NULL,
    ip BIGINT NOT NULL, mac TEXT NOT NULL
);
INSERT INTO "ports" VALUES('fec6c4f1-f0fa-4c10-91b4-d29c5f7b6485','90fd9b99-97c0-4cd9-9022-46e92d89f198','fec6c4f1-f0fa-4c10-91b4-d29c5f7b6485',1,1795474338653911,1795474338653911,NULL,'{"meta":{"id":"fec6c4f1-f0fa-4c10-91b4-d29c5f7b6485","project":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project_name":"default","name":"fec6c4f1-f0fa-4c10-91b4-d29c5f7b6485","version":1,"created_at":1795474338653911,"updated_at":1795474338653911,"deleted_at":null,"labels":{}},"vpc":"200b0d2a-bf51-4c53-86e8-a6e70eea8ce0","vpc_name":"default","subnet":"a10e9791-b5f0-471d-aa94-fac3cd888870","subnet_name":"default","mac":"52:54:00:7b:64:85","ip":"10.0.0.2","instance":"aff15850-4b69-4301-9acc-fa66761b8e0e","instance_name":"db-01","host":"17361e5d-a6c0-4526-a99f-3c3c765ca47a","host_name":"vm","removing":false}','200b0d2a-bf51-4c53-86e8-a6e70eea8ce0','a10e9791-b5f0-471d-aa94-fac3cd888870','aff15850-4b69-4301-9acc-fa66761b8e0e','17361e5d-a6c0-4526-a99f-3c3c765ca47a',167772162,'52:54:00:7b:64:85');
INSERT INTO "ports" VALUES('a817147c-90f7-4f00-be77-59c50edcc84a','90fd9b99-97c0-4cd9-9022-46e92d89f198','a817147c-90f7-4f00-be77-59c50edcc84a',1,1795474378445769,1795474378445769,NULL,'{"meta":{"id":"a817147c-90f7-4f00-be77-59c50edcc84a","project":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project_name":"default","name":"a817147c-90f7-4f00-be77-59c50edcc84a","version":1,"created_at":1795474378445769,"updated_at":1795474378445769,"deleted_at":null,"labels":{}},"vpc":"200b0d2a-bf51-4c53-86e8-a6e70eea8ce0","vpc_name":"default","subnet":"a10e9791-b5f0-471d-aa94-fac3cd888870","subnet_name":"default","mac":"52:54:00:dc:c8:4a","ip":"10.0.0.3","instance":"732073af-03c2-402e-86f9-cd5bb9b8a336","instance_name":"web-01","host":"17361e5d-a6c0-4526-a99f-3c3c765ca47a","host_name":"vm","removing":false}','200b0d2a-bf51-4c53-86e8-a6e70eea8ce0','a10e9791-b5f0-471d-aa94-fac3cd888870','732073af-03c2-402e-86f9-cd5bb9b8a336','17361e5d-a6c0-4526-a99f-3c3c765ca47a',167772163,'52:54:00:dc:c8:4a');
CREATE TABLE projects (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL
);
INSERT INTO "projects" VALUES('90fd9b99-97c0-4cd9-9022-46e92d89f198','00000000-0000-0000-0000-000000000000','default',1,1795474335997780,1795474335997780,NULL,'{"meta":{"id":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project":"00000000-0000-0000-0000-000000000000","project_name":"","name":"default","version":1,"created_at":1795474335997780,"updated_at":1795474335997780,"deleted_at":null,"labels":{}}}');
CREATE TABLE subnets (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    vpc_id TEXT NOT NULL, cursor BIGINT NOT NULL DEFAULT 0
);
INSERT INTO "subnets" VALUES('a10e9791-b5f0-471d-aa94-fac3cd888870','90fd9b99-97c0-4cd9-9022-46e92d89f198','default',1,1795474335998375,1795474335998375,NULL,'{"meta":{"id":"a10e9791-b5f0-471d-aa94-fac3cd888870","project":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project_name":"default","name":"default","version":1,"created_at":1795474335998375,"updated_at":1795474335998375,"deleted_at":null,"labels":{}},"vpc":"200b0d2a-bf51-4c53-86e8-a6e70eea8ce0","vpc_name":"default","cidr":"10.0.0.0/24","dns_servers":[]}','200b0d2a-bf51-4c53-86e8-a6e70eea8ce0',2);
CREATE TABLE volumes (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    host_id TEXT, instance_id TEXT, status TEXT NOT NULL
);
INSERT INTO "volumes" VALUES('518c05b7-7bce-4266-bfd8-0a11cafd027c','90fd9b99-97c0-4cd9-9022-46e92d89f198','root-aff15850-4b69-4301-9acc-fa66761b8e0e',2,1795474338653690,1795474339052910,NULL,'{"meta":{"id":"518c05b7-7bce-4266-bfd8-0a11cafd027c","project":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project_name":"default","name":"root-aff15850-4b69-4301-9acc-fa66761b8e0e","version":2,"created_at":1795474338653690,"updated_at":1795474339052910,"deleted_at":null,"labels":{}},"size":1,"status":"IN_USE","status_reason":"","host":"17361e5d-a6c0-4526-a99f-3c3c765ca47a","host_name":"vm","pool":"default","instance":"aff15850-4b69-4301-9acc-fa66761b8e0e","instance_name":"db-01","root":true,"image":"b94f4994-8bb5-499f-b6f3-37ddcbfc90d2","image_name":"tiny"}','17361e5d-a6c0-4526-a99f-3c3c765ca47a','aff15850-4b69-4301-9acc-fa66761b8e0e','IN_USE');
INSERT INTO "volumes" VALUES('98ce5c60-f5d6-45d0-8bfd-7aa5b9c7b635','90fd9b99-97c0-4cd9-9022-46e92d89f198','root-732073af-03c2-402e-86f9-cd5bb9b8a336',2,1795474378445548,1795474378469931,NULL,'{"meta":{"id":"98ce5c60-f5d6-45d0-8bfd-7aa5b9c7b635","project":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project_name":"default","name":"root-732073af-03c2-402e-86f9-cd5bb9b8a336","version":2,"created_at":1795474378445548,"updated_at":1795474378469931,"deleted_at":null,"labels":{}},"size":1,"status":"IN_USE","status_reason":"","host":"17361e5d-a6c0-4526-a99f-3c3c765ca47a","host_name":"vm","pool":"default","instance":"732073af-03c2-402e-86f9-cd5bb9b8a336","instance_name":"web-01","root":true,"image":"b94f4994-8bb5-499f-b6f3-37ddcbfc90d2","image_name":"tiny"}','17361e5d-a6c0-4526-a99f-3c3c765ca47a','732073af-03c2-402e-86f9-cd5bb9b8a336','IN_USE');
CREATE TABLE vpcs (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    vni BIGINT NOT NULL, generation BIGINT NOT NULL DEFAULT 1
);
INSERT INTO "vpcs" VALUES('200b0d2a-bf51-4c53-86e8-a6e70eea8ce0','90fd9b99-97c0-4cd9-9022-46e92d89f198','default',1,1795474335998166,1795474335998166,NULL,'{"meta":{"id":"200b0d2a-bf51-4c53-86e8-a6e70eea8ce0","project":"90fd9b99-97c0-4cd9-9022-46e92d89f198","project_name":"default","name":"default","version":1,"created_at":1795474335998166,"updated_at":1795474335998166,"deleted_at":null,"labels":{}},"cidr":"10.0.0.0/16","vni":4097,"is_default":true}',4097,3);
CREATE TABLE work (
    kind TEXT NOT NULL, id TEXT NOT NULL, due_at BIGINT, sequence BIGINT NOT NULL DEFAULT 1,
    lease_token TEXT, lease_until BIGINT, attempts BIGINT NOT NULL DEFAULT 0, last_error TEXT,
    trace TEXT,
    PRIMARY KEY (kind, id)
);
INSERT INTO "work" VALUES('instance','aff15850-4b69-4301-9acc-fa66761b8e0e',NULL,5,NULL,NULL,0,NULL,'00-50cdd9c7c6ccea5075ce2fd443cd447c-6c013282f3b48221-01');
INSERT INTO "work" VALUES('vpc','200b0d2a-bf51-4c53-86e8-a6e70eea8ce0',NULL,2,NULL,NULL,0,NULL,'00-57d30d9b458b97d1ea848f3855d97ce1-b296f5c5afa466c7-01');
INSERT INTO "work" VALUES('instance','732073af-03c2-402e-86f9-cd5bb9b8a336',NULL,8,NULL,NULL,0,NULL,'00-ede5991a375885a0620fa56be9096d0b-9affb1506b9a10a4-01');
CREATE UNIQUE INDEX projects_name ON projects (project_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX api_keys_name ON api_keys (project_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);
CREATE UNIQUE INDEX instance_types_name ON instance_types (project_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX hosts_name ON hosts (project_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX images_name ON images (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX images_public ON images (public, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX instances_name ON instances (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX instances_page ON instances (project_id, created_at, id);
CREATE INDEX instances_host ON instances (host_id) WHERE deleted_at IS NULL;
CREATE INDEX instances_status ON instances (status) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX volumes_name ON volumes (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX volumes_page ON volumes (project_id, created_at, id);
CREATE INDEX volumes_instance ON volumes (instance_id) WHERE deleted_at IS NULL;
CREATE INDEX volumes_host ON volumes (host_id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX vpcs_name ON vpcs (project_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX vpcs_vni ON vpcs (vni) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX subnets_name ON subnets (vpc_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX ports_name ON ports (project_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX ports_ip ON ports (subnet_id, ip) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX ports_mac ON ports (vpc_id, mac) WHERE deleted_at IS NULL;
CREATE INDEX ports_instance ON ports (instance_id) WHERE deleted_at IS NULL;
CREATE INDEX ports_page ON ports (project_id, created_at, id);
CREATE INDEX work_due ON work (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX events_project ON events (project_id, revision);
CREATE INDEX events_resource ON events (resource_id, revision);
COMMIT;
