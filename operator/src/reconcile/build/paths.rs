//! Paths in the container of a node: its configuration refers to what the pod mounts there.

/// The key in the ConfigMap, and the name of the file.
pub(super) const CONFIG_FILE: &str = "config.yaml";
/// Mount path of the ConfigMap. The whole folder is mounted, because the kubelet does not update a
/// single mounted file.
pub(super) const CONFIG_FOLDER: &str = "/etc/entrepot/config";
/// Mount path of the volume. The store is a folder in it, because a file system may have its own
/// folders at its root, such as lost+found.
pub(super) const VOLUME_FOLDER: &str = "/var/lib/entrepot";
pub(super) const STORE_FOLDER: &str = "/var/lib/entrepot/store";
pub(super) const CREDENTIALS_FOLDER: &str = "/etc/entrepot/credentials";
pub(super) const ACCESS_KEY_ID: &str = "/etc/entrepot/credentials/accessKeyId";
pub(super) const SECRET_ACCESS_KEY: &str = "/etc/entrepot/credentials/secretAccessKey";
pub(super) const SESSION_TOKEN: &str = "/etc/entrepot/credentials/sessionToken";
pub(super) const CA_FOLDER: &str = "/etc/entrepot/ca";
pub(super) const CA_FILE: &str = "/etc/entrepot/ca/ca.crt";
