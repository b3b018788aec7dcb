"""Which test stands for which row of the list of known field faults, and why the other rows have none here.

The numbers are those of the list's rows marked T. test_rows.py checks that none is forgotten.
"""

from __future__ import annotations

MARKED = frozenset(
    {*range(1, 5), *range(6, 22), *range(23, 26), *range(32, 35), *range(36, 40), *range(44, 48)}
    | {51, 52, 53, 54, 61, 62, 68}
)

# Row: what the names of its tests begin with, after `test_`.
TESTED = {
    1: "nucleus_issue_1203",
    2: "nucleus_issue_807",
    3: "nucleus_issue_1161",
    4: "nucleus_issue_798",
    6: "nucleus_issue_1765",
    7: "lite_issue_1151",
    8: "lite_issue_1018",
    9: "anax_issue_3703",
    10: "nomad_issue_10465",
    11: "nucleus_issue_1635",
    12: "nucleus_issue_1168",
    13: "nucleus_pull_933",
    14: "nucleus_pull_1410",
    15: "nucleus_pull_1497",
    16: "nucleus_pull_1824",
    17: "nucleus_issue_1342",
    18: "supervisor_issue_4590",
    19: "supervisor_pull_6726",
    20: "supervisor_pull_6821",
    21: "anax_issue_3346",
    23: "ostree_issue_2283",
    24: "ostree_issue_1778",
    25: "rauc_issue_459",
    32: "iotedge_issue_1003",
    33: "iotedge_issue_6164",
    34: "iotedge_issue_4545",
    36: "nucleus_issue_1650",
    37: "nucleus_issue_848",
    38: "supervisor_issue_674",
    39: "lite_issue_767",
    46: "supervisor_issue_1513",
    47: "supervisor_issue_1065",
    51: "kubeedge_issue_3618",
    52: "kubeedge_issue_3941",
    53: "nucleus_issue_1453",
    54: "nucleus_pull_810",
    61: "nucleus_issue_1036",
    68: "nucleus_issue_1023",
}

# Row: why no test of this folder stands for it.
NOT_HERE = {
    44: "hawkbit issue 1400, preview of a rollout's groups: the cloud forms groups, no device takes part",
    45: "anax issue 3577, all members of a group at once: the cloud decides when which device is told",
    62: "aws-cli issue 6185, completed although devices failed: the cloud's status of a deployment",
}
