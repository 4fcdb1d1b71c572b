"""deploy/k8s/sims.yaml: one simulator per domain (`make manifests`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import newt
from newt.tasks.domains import DOMAINS

TARGET = Path(__file__).resolve().parent / "k8s" / "sims.yaml"

HEADER = """\
# One service per domain. Written by `make manifests`: change the template in deploy/sims.py, not this file.
# A session lives in one replica, so clients keep each session on the replica that opened it (newt/client/sim.py).
"""

TEMPLATE = """\
apiVersion: v1
kind: ServiceAccount
metadata:
  name: sim-{domain}
  namespace: newt
  labels: {labels}
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  name: sim-{domain}
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
  name: sim-{domain}
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
      serviceAccountName: sim-{domain}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 30
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: sim
          image: localhost/newt/{image}:{version}
          envFrom:
            - configMapRef: {{name: sim}}
          env:
            - {{name: NEWT_SIM_DOMAINS, value: {domain}}}
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
  name: sim-{domain}
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
  name: sim-{domain}
  namespace: newt
  labels: {labels}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: sim-{domain}}}
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


@dataclass(frozen=True)
class Memory:
    """Memory of a simulator pod with four workers, as Kubernetes quantities."""

    request: str = "512Mi"
    limit: str = "4Gi"


MEMORY = {
    "maniskill": Memory("2Gi", "12Gi"),  # torch and a physics scene in every worker
    "robodesk": Memory("1Gi", "6Gi"),
    "metaworld": Memory("1Gi", "6Gi"),
}


def files() -> dict[Path, str]:
    """The whole file."""
    parts = []
    for domain in DOMAINS.values():
        memory = MEMORY.get(domain.name, Memory())
        labels = (
            f"{{app.kubernetes.io/part-of: newt, app.kubernetes.io/component: sim, newt.dev/domain: {domain.name}}}"
        )
        parts.append(
            TEMPLATE.format(
                domain=domain.name,
                image=domain.service,
                version=newt.__version__,
                labels=labels,
                request=memory.request,
                limit=memory.limit,
            )
        )
    return {TARGET: HEADER + "---\n".join(parts)}
