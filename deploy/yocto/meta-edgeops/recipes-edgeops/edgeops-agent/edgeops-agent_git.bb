SUMMARY = "Runs machine-learning models on this device under signed orders"
DESCRIPTION = "The device's part of edgeops: takes signed releases of ONNX models over MQTT, tries them, serves the good one locally \
and goes back to the last good one by itself."
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

# Where your copy of the repository is, and the commit to build. The unit and its user come with it.
EDGEOPS_GIT ?= "git:///srv/git/edgeops.git;protocol=file"
EDGEOPS_BRANCH ?= "main"
SRCREV ?= "${AUTOREV}"
SRC_URI = "${EDGEOPS_GIT};branch=${EDGEOPS_BRANCH}"
PV = "0.1.0+git"

inherit python_setuptools_build_meta systemd useradd

# What no device needs: the manager's half, straw devices, the manager's command.
do_install:append() {
    for room in api broker cli fleet forge manager rollout store; do
        rm -rf ${D}${PYTHON_SITEPACKAGES_DIR}/edgeops/$room
    done
    rm -rf ${D}${PYTHON_SITEPACKAGES_DIR}/edgeops_agent/sim ${D}${bindir}/edgeops
    install -D -m 0644 ${S}/deploy/edgeops-agent.service ${D}${systemd_system_unitdir}/edgeops-agent.service
    install -D -m 0644 ${S}/deploy/deb/tmpfiles.conf ${D}${nonarch_libdir}/tmpfiles.d/edgeops-agent.conf
    install -D -m 0644 ${S}/deploy/deb/default ${D}${sysconfdir}/default/edgeops-agent
}

SYSTEMD_SERVICE:${PN} = "edgeops-agent.service"
USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --home-dir /var/lib/edgeops-agent --no-create-home --shell /sbin/nologin --user-group edgeops-agent"

FILES:${PN} += "${systemd_system_unitdir} ${nonarch_libdir}/tmpfiles.d"
CONFFILES:${PN} += "${sysconfdir}/default/edgeops-agent"
RDEPENDS:${PN} += " \
    onnxruntime \
    python3-cbor2 \
    python3-cryptography \
    python3-modules \
    python3-numpy \
    python3-paho-mqtt \
"
