"""What the SRDiffusion paper claims, in our words, and one later paper that contradicts it."""

from __future__ import annotations

from srbench.paper.claims.base import Claim
from srbench.paper.claims.closeness import Closer, FollowsMore
from srbench.paper.claims.phases import ChangeSettles, EarlyStepsMatter
from srbench.paper.claims.scores import GapIsIn, NextToNoLoss, ScoresAbove
from srbench.paper.claims.speed import Faster, FastestOfAll
from srbench.paper.claims.switching import (
    AgainLargeIsBetter,
    BetterThanFixed,
    HardSwitchLater,
    Steadier,
    WiderRange,
)

WAN, WAN720, COG = "wan21_480p", "wan21_720p", "cogvideox"
SLACK = 0.05  # of a factor that is claimed as such, not as a bound: device and software are others

CLAIMS = (
    # speed
    Claim(
        "speed_fast",
        "SRDiffusion δ=0.03 is more than 3 times as fast as the large model",
        "abstract; Table 2",
        (WAN,),
        Faster("srd_c3", 3.0, WAN),
    ),
    Claim(
        "speed",
        "SRDiffusion δ=0.01 is 2.84 times as fast as the large model",
        "Tables 2 and 5",
        (WAN, WAN720),
        Faster("srd_c2", 2.84, WAN, SLACK),
    ),
    Claim(
        "speed_cogvideox",
        "SRDiffusion δ=0.015 is more than twice as fast as the large model",
        "abstract; Table 2",
        (COG,),
        Faster("srd_c3", 2.0, COG),
        elsewhere=False,
    ),
    Claim(
        "speed_teacache",
        "SRDiffusion δ=0.01 with TeaCache while rendering is 3.91 times as fast as the large model",
        "Table 3",
        (WAN,),
        Faster("srd_teacache", 3.91, WAN, SLACK),
    ),
    Claim(
        "speed_teacache_cogvideox",
        "SRDiffusion δ=0.01 with TeaCache while rendering is 1.99 times as fast as the large model",
        "Table 3",
        (COG,),
        Faster("srd_teacache", 1.99, COG, SLACK),
        elsewhere=False,
    ),
    Claim(
        "speed_sage",
        "SRDiffusion with TeaCache and SageAttention is 6.22 times as fast as the large model",
        "Figure 5, on an NVIDIA H20",
        (WAN,),
        Faster("srd_teacache_sage", 6.22, WAN, SLACK),
        elsewhere=False,
    ),
    Claim(
        "speed_small",
        "the small model alone is more than 5 times as fast as the large one",
        "section 3.1; Table 1",
        (WAN,),
        Faster("small", 5.0, WAN),
    ),
    Claim(
        "speed_of_all",
        "every SRDiffusion setting is faster than every PAB and TeaCache setting",
        "appendix A.1; Tables 6 and 7",
        (WAN, COG),
        FastestOfAll(("6", "7")),
    ),
    # scores
    Claim(
        "no_loss_fast",
        "SRDiffusion δ=0.03, over 3 times as fast, loses next to nothing in {score}",
        "abstract; Table 2",
        (WAN,),
        NextToNoLoss("srd_c3", WAN),
    ),
    Claim(
        "no_loss",
        "SRDiffusion δ=0.01 loses next to nothing in {score}",
        "sections 4.2 and 4.5; Tables 2 and 5",
        (WAN, WAN720, COG),
        NextToNoLoss("srd_c2", WAN),
    ),
    Claim(
        "above_rivals",
        "SRDiffusion δ=0.03 scores above PAB and TeaCache in {score}",
        "section 4.2; Table 2",
        (WAN,),
        ScoresAbove("srd_c3", WAN, ("2",)),
    ),
    Claim(
        "above_rivals_slow",
        "SRDiffusion δ=0.01 scores above PAB and TeaCache in {score}",
        "section 4.2; Tables 2 and 5",
        (WAN, WAN720, COG),
        ScoresAbove("srd_c2", WAN, ("2", "5")),
    ),
    Claim(
        "above_large",
        "SRDiffusion δ=0.03 scores above the large model itself in {score}",
        "section 4.2; Table 2",
        (WAN,),
        ScoresAbove("srd_c3", WAN, ("2",), ("large",)),
    ),
    Claim(
        "above_all_720p",
        "SRDiffusion δ=0.01 has the highest total, quality and semantic score of the table",
        "section 4.5; Table 5",
        (WAN720,),
        ScoresAbove(
            "srd_c2", WAN720, ("5",), ("large", "small", "teacache_c2"), ("total", "quality", "semantic")
        ),
        elsewhere=False,
    ),
    Claim(
        "gap_semantic",
        "the large model leads the small one in semantics more than in quality",
        "section 3.1; Tables 1 and 2",
        (WAN,),
        GapIsIn("semantic", "quality", ("1", "2")),
    ),
    Claim(
        "gap_turned",
        "in quality the small model leads the large one",
        "printed in Table 5, said nowhere",
        (WAN720,),
        GapIsIn("quality", "", ("5",), turned=True),
        elsewhere=False,
    ),
    # similarity
    Claim(
        "closer",
        "at no less speed SRDiffusion δ=0.01 is closer to the large model than PAB and TeaCache",
        "sections 4.2 and 4.5; Tables 2 and 5",
        (WAN, WAN720, COG),
        Closer("srd_c2", WAN, ("2", "5")),
    ),
    Claim(
        "closer_fast",
        "at no less speed SRDiffusion δ=0.03 is closer to the large model than PAB and TeaCache",
        "section 4.2; Table 2",
        (WAN,),
        Closer("srd_c3", WAN, ("2",)),
    ),
    Claim(
        "closer_fast_cogvideox",
        "at about equal speed SRDiffusion δ=0.015 is closer to the large model than PAB and TeaCache",
        "section 4.2; Table 2",
        (COG,),
        Closer("srd_c3", COG, ("2",), within=0.1),
        elsewhere=False,
    ),
    Claim(
        "smaller_delta",
        "a smaller δ follows the large model more closely",
        "section 4.2, appendix A.2; Table 2",
        (WAN, COG),
        FollowsMore(("2",)),
    ),
    # the switch
    Claim(
        "adaptive",
        "the adaptive switch (δ=0.01) is closer to the large model than a fixed one of equal mean cost",
        "section 4.4; Table 4",
        (WAN, COG),
        BetterThanFixed("srd_c2", WAN),
    ),
    Claim(
        "steadier",
        "the PSNR of the adaptive switch (δ=0.01) varies less over videos than a fixed one's",
        "section 4.4; Figure 6",
        (WAN, COG),
        Steadier("srd_c2", WAN),
    ),
    Claim(
        "hard_later",
        "the adaptive switch (δ=0.01) waits longer where a fixed one ends less like the large model",
        "section 4.4; Figure 6",
        (WAN, COG),
        HardSwitchLater("srd_c2", WAN),
    ),
    Claim(
        "wider",
        "switch steps at δ=0.01 are spread wider on Wan 2.1 than on CogVideoX",
        "appendix A.2; Figure 7",
        (WAN, COG),
        WiderRange("srd_c2", WAN, COG),
        elsewhere=False,
    ),
    # why it may work
    Claim(
        "early",
        "noise put into the first fifth of the steps changes what the video shows, later noise only details",
        "section 3.1; Figure 1",
        (WAN, COG),
        EarlyStepsMatter(),
    ),
    Claim(
        "settles",
        "the change of D between steps shrinks and then settles",
        "section 3.3; Figure 3",
        (WAN, COG),
        ChangeSettles(),
    ),
    # said by others
    Claim(
        "again_large",
        "large, small, then large again scores above large, then small, at equal cost",
        "FlowBlending, arXiv 2512.24724",
        (WAN,),
        AgainLargeIsBetter(),
    ),
)
