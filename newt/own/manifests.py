"""Kubernetes manifests of one simulator: ours (`make manifests`), and those that `newt env image` writes."""

from __future__ import annotations

_SIM = """\
apiVersion: v1
kind: ServiceAccount
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
spec:
  clusterIP: None
  selector: {labels}
  ports:
    - {{name: grpc, port: 50051, targetPort: grpc, appProtocol: grpc}}
    - {{name: metrics, port: 9100, targetPort: metrics}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
spec:
  # No `replicas`: the autoscaler below owns the number.
  selector:
    matchLabels: {labels}
  template:
    metadata:
      labels: {labels}
      annotations: {{prometheus.io/scrape: "true", prometheus.io/port: "9100", prometheus.io/path: /metrics}}
    spec:
      serviceAccountName: sim-{name}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 90  # above NEWT_SIM_DRAIN_S: collectors end their episodes there
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: sim
          image: {image}
          envFrom:
            - configMapRef: {{name: sim}}
          env:
            - {{name: NEWT_SIM_DOMAINS, value: {domains}}}
            - {{name: NEWT_SIM_DRAIN_S, value: "60"}}
            # By default one worker per core of the node.
            - name: NEWT_SIM_WORKERS
              valueFrom: {{resourceFieldRef: {{resource: limits.cpu}}}}
          ports:
            - {{name: grpc, containerPort: 50051}}
            - {{name: metrics, containerPort: 9100}}
          startupProbe:
            grpc: {{port: 50051, service: liveness}}
            periodSeconds: 2
            failureThreshold: 90
          readinessProbe:  # the domain has taken a real step, and all workers run
            grpc: {{port: 50051, service: newt.v1.SimService}}
            periodSeconds: 5
            timeoutSeconds: 5
          livenessProbe:
            grpc: {{port: 50051, service: liveness}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources:
            requests: {{cpu: 250m, memory: {request}}}
            limits: {{cpu: "4", memory: {limit}}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: tmp, mountPath: /tmp}}
      volumes:
        - name: tmp
          emptyDir: {{sizeLimit: 1Gi}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow  # a pod that cannot become ready must not hold a node
  selector:
    matchLabels: {labels}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: sim-{name}}}
  minReplicas: 1
  maxReplicas: 4
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {{type: AverageValue, averageValue: "3"}}  # cores of a replica, of the four that it may use
  behavior:
    # A replica that goes takes the running episodes of its sessions along.
    scaleDown: {{stabilizationWindowSeconds: 3600}}
"""
_KUSTOMIZATION = """\
# The simulator of {name} in Kubernetes. Written by `newt env image`: name this folder under `components` of a
# kustomization whose resources have deploy/k8s, and bring the image to the nodes. With mutual TLS, name its folder mtls
# behind it.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources: [sim.yaml]
patches:
  - target: {{kind: ConfigMap, name: learner}}
    patch: |-
      - {{op: add, path: /data/NEWT_LEARNER_SIMS__{name}, value: "dns:///sim-{name}:50051"}}
"""
_TLS = """\
# Mutual TLS for the simulator of {name}. Written by `newt env image`: name this folder under `components` behind that
# which it lies in, where deploy/components/mtls (or an overlay that has it) secures the rest. Its authority makes the
# certificate.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources: [certificate.yaml]
patches:
  - patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata: {{name: sim-{name}, namespace: newt}}
      spec:
        template:
          spec:
            containers:
              - name: sim
                env:
                  - {{name: NEWT_TLS_DIR, value: /etc/newt-tls}}
                volumeMounts:
                  - {{name: certificate, mountPath: /etc/newt-tls, readOnly: true}}
                # Kubernetes' own gRPC probes cannot do TLS, so the container asks itself.
                startupProbe:
                  grpc: null
                  exec: {{command: [python, -m, newt.wire.probe, "127.0.0.1:50051", liveness, --timeout-s, "8"]}}
                  periodSeconds: 5
                  timeoutSeconds: 10
                  failureThreshold: 60
                readinessProbe:
                  grpc: null
                  exec:
                    command: [python, -m, newt.wire.probe, "127.0.0.1:50051", newt.v1.SimService, --timeout-s, "8"]
                  periodSeconds: 10
                  timeoutSeconds: 10
                  failureThreshold: 3
                livenessProbe:
                  grpc: null
                  exec: {{command: [python, -m, newt.wire.probe, "127.0.0.1:50051", liveness, --timeout-s, "8"]}}
                  periodSeconds: 20
                  timeoutSeconds: 10
                  failureThreshold: 6
            volumes:
              - {{name: certificate, secret: {{secretName: sim-{name}-certificate, defaultMode: 0440}}}}
"""
_CERTIFICATE = """\
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
spec:
  secretName: sim-{name}-certificate
  duration: 8760h
  renewBefore: 2880h
  privateKey: {{algorithm: ECDSA, size: 256, rotationPolicy: Always}}
  usages: [digital signature, server auth, client auth]
  dnsNames:
    - sim-{name}
    - sim-{name}.newt
    - sim-{name}.newt.svc
    - sim-{name}.newt.svc.cluster.local
  ipAddresses: [127.0.0.1]  # the probes' name for it
  issuerRef: {{name: newt-ca, kind: Issuer, group: cert-manager.io}}
"""


def simulator(name: str, image: str, domains: str, request: str = "512Mi", limit: str = "4Gi") -> str:
    """Manifests of one simulator.

    Args:
        name: What is behind `sim-` in its name; also its label `newt.dev/domain`.
        image: Its image, with a tag.
        domains: NEWT_SIM_DOMAINS.
        request: Memory of a pod with four workers, as a Kubernetes quantity.
        limit: The most that it may have.
    """
    return _SIM.format(name=name, image=image, domains=domains, request=request, limit=limit, labels=_labels(name))


def component(name: str, image: str) -> dict[str, str]:
    """Texts by file of a kustomize component with the simulator of a source, and of one that secures it.

    Args:
        name: What is behind `sim-` in its name.
        image: Its image, with a tag.
    """
    return {
        "kustomization.yaml": _KUSTOMIZATION.format(name=name),
        "sim.yaml": simulator(name, image, "own"),
        "mtls/kustomization.yaml": _TLS.format(name=name),
        "mtls/certificate.yaml": _CERTIFICATE.format(name=name, labels=_labels(name)),
    }


def _labels(name: str) -> str:
    return f"{{app.kubernetes.io/part-of: newt, app.kubernetes.io/component: sim, newt.dev/domain: {name}}}"
