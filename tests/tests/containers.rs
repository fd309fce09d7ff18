//! Containers of a real Docker daemon, attached by name.

use serde_json::json;
use vnet_tests::lab::{Docker, Lab, Output, vnet_binary};
use vnet_tests::peer::{Server, Service};

/// Runs vnet on the lab's host, for which the daemon is the only one there is.
fn vnet(lab: &Lab, docker: &Docker, args: &[&str]) -> Output {
    let binary = vnet_binary();
    let argv = [&[binary.to_str().expect("a path in UTF-8"), "--instance", lab.instance()], args].concat();
    let argv: Vec<String> = argv.into_iter().map(str::to_owned).collect();
    let environment = [lab.environment(), vec![("DOCKER_HOST".to_owned(), docker.host())]].concat();
    lab.host().run_with(&argv, &environment)
}

#[test]
fn a_container_is_attached_by_its_name() {
    let lab = Lab::up();
    let Some(docker) = Docker::start(&lab) else { return };
    docker.run("web", &["--network", "none"]);
    let name = lab.name("web");
    let attach = ["ns", "attach", &name, "--container", "web"];
    vnet(&lab, &docker, &attach).ok();
    assert!(vnet(&lab, &docker, &attach).ok().stdout.contains("(already)"));
    let endpoint = &lab.vnet_list(&["ns", "inspect", &name], "endpoints")[0];
    assert_eq!(endpoint["ifname"], json!("eth0"), "{endpoint}");
    let ip = |args: &[&str]| docker.exec("web", &[&["ip"], args].concat()).ok().stdout;
    assert!(ip(&["address", "show", "eth0"]).contains("192.168.0.2/24"));
    assert!(ip(&["route"]).contains("default via 192.168.0.1 dev eth0"));

    // The container reaches the world, and the world reaches the container.
    let server = Server::tcp(lab.outside(), "203.0.113.2:7000", Service::Echo);
    let seen = docker.exec("web", &["nc", "-w", "5", "203.0.113.2", "7000"]).ok().stdout;
    assert!(seen.starts_with("203.0.113.1:"), "the world sees the host: {seen}");
    drop(server);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{name}:80")]);
    docker.docker(&["exec", "--detach", "web", "/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/bin"]);
    let fetched = lab.outside().run(&[
        "curl",
        "--silent",
        "--show-error",
        "--retry",
        "20",
        "--retry-connrefused",
        "--retry-delay",
        "1",
        "--max-time",
        "20",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code} %{size_download}",
        "http://203.0.113.1:8088/busybox",
    ]);
    let size = docker.exec("web", &["stat", "-c", "%s", "/bin/busybox"]).ok().stdout;
    assert_eq!(fetched.ok().stdout, format!("200 {}", size.trim()));

    // It is not ours: it is left alone when the endpoint goes.
    lab.vnet_ok(&["ns", "rm", &name]);
    assert!(!ip(&["address"]).contains("eth0"));
}

#[test]
fn a_container_that_cannot_be_attached_is_named_with_the_reason() {
    let lab = Lab::up();
    let Some(docker) = Docker::start(&lab) else { return };
    docker.run("stopped", &["--network", "none"]);
    docker.docker(&["stop", "--time", "0", "stopped"]);
    docker.run("host", &["--network", "host"]);
    let name = lab.name("net1");
    let before = lab.snapshot();
    for (container, words) in [
        ("stopped", "container stopped of Docker is exited"),
        ("host", "container host of Docker shares the host's network"),
        ("nobody", "there is no container nobody: asked Docker"),
    ] {
        vnet(&lab, &docker, &["ns", "attach", &name, "--container", container]).fails_with(1, &[words]);
    }
    assert_eq!(before, lab.snapshot());
}
