//! Endpoints that describe the server.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::bounds::Bounds;
use super::many::MAX_BATCH;
use super::status::{self, Status};
use crate::jobs::Service;

/// The version whose interface this is. Clients choose their ids of languages by it.
const VERSION: &str = "1.13.1";

/// `GET /statuses`
pub async fn statuses() -> Json<[Status; 14]> {
    Json(status::ALL)
}

/// `GET /about`
pub async fn about() -> Json<Value> {
    let server = concat!("clouded ", env!("CARGO_PKG_VERSION"));
    Json(json!({
        "version": VERSION, "homepage": "/docs", "source_code": server, "maintainer": server,
    }))
}

/// `GET /version`
pub async fn version() -> &'static str {
    VERSION
}

/// `GET /license`
pub async fn license() -> &'static str {
    include_str!("../../../../../../LICENSE")
}

/// `POST /authenticate` and `/authorize`: the key was checked before.
pub async fn authorized() {}

/// `GET /system_info`: the machine for VMs, in the names of lscpu(1) and free(1).
pub async fn system_info(State(service): State<Service>) -> Json<Value> {
    let capacity = service.capacity();
    let memory = format!("{:.1}G", capacity.memory_mib as f64 / 1024.0);
    Json(json!({
        "Architecture": std::env::consts::ARCH, "CPU(s)": capacity.vcpus.to_string(), "Mem": memory,
    }))
}

/// `GET /workers`: VMs stand for workers.
pub async fn workers(State(service): State<Service>) -> Json<Value> {
    let (load, capacity) = (service.load(), service.capacity());
    Json(json!([{
        "queue": "default", "size": load.waiting + load.for_image, "available": capacity.vms,
        "idle": capacity.vms.saturating_sub(load.running), "working": load.running, "paused": 0,
    }]))
}

/// `GET /config_info`
pub async fn config_info(State(service): State<Service>) -> Json<Value> {
    let config = service.config();
    let bounds = Bounds::of(config);
    let callbacks = &config.callbacks;
    Json(json!({
        "maintenance_mode": service.is_draining(),
        "enable_wait_result": true,
        "enable_compiler_options": true,
        "allowed_languages_for_compile_options": [],
        "enable_command_line_arguments": true,
        "enable_submission_delete": true,
        "enable_callbacks": !callbacks.secret.is_empty(),
        "callbacks_max_tries": callbacks.attempts,
        "callbacks_timeout": callbacks.timeout_ms as f64 / 1000.0,
        "enable_additional_files": true,
        "max_queue_size": service.capacity().queue,
        "cpu_time_limit": bounds.cpu_time.default,
        "max_cpu_time_limit": bounds.cpu_time.most,
        "cpu_extra_time": bounds.cpu_extra_time.default,
        "max_cpu_extra_time": bounds.cpu_extra_time.most,
        "wall_time_limit": bounds.wall_time.default,
        "max_wall_time_limit": bounds.wall_time.most,
        "memory_limit": bounds.memory.default,
        "max_memory_limit": bounds.memory.most,
        "stack_limit": bounds.stack.default,
        "max_stack_limit": bounds.stack.most,
        "max_processes_and_or_threads": bounds.processes.default,
        "max_max_processes_and_or_threads": bounds.processes.most,
        "enable_per_process_and_thread_time_limit": false,
        "allow_enable_per_process_and_thread_time_limit": true,
        "enable_per_process_and_thread_memory_limit": false,
        "allow_enable_per_process_and_thread_memory_limit": true,
        "max_file_size": bounds.file.default,
        "max_max_file_size": bounds.file.most,
        "number_of_runs": 1,
        "max_number_of_runs": 1,
        "redirect_stderr_to_stdout": false,
        "max_extract_size": bounds.files_bytes / 1024,
        "enable_batched_submissions": true,
        "max_submission_batch_size": MAX_BATCH,
        "submission_cache_duration": 0.0,
        "use_docs_as_homepage": false,
        "allow_enable_network": config.network.enabled,
        "enable_network": false,
    }))
}
