// Behaviour of the UltraScale+ cells that rtl/arithmetic/primitives.py places, for simulation only.
// DSP48E2: P = A * B with the optional registers, whatever else the cell can do is refused.
`default_nettype none

module LUT6 #(parameter [63:0] INIT = 0) (input wire I0, I1, I2, I3, I4, I5, output wire O);
  assign O = INIT[{I5, I4, I3, I2, I1, I0}];
endmodule

module MUXF7 (input wire I0, I1, S, output wire O);
  assign O = S ? I1 : I0;
endmodule

module FDRE #(parameter INIT = 0) (input wire C, CE, D, R, output reg Q);
  initial Q = INIT;
  always @(posedge C) if (R) Q <= 0; else if (CE) Q <= D;
endmodule

module CARRY8 #(parameter CARRY_TYPE = "SINGLE_CY8") (
  input wire CI, CI_TOP, input wire [7:0] DI, S, output wire [7:0] O, CO
);
  assign CO[0] = S[0] ? CI : DI[0];
  assign O[0] = S[0] ^ CI;
  genvar i;
  generate for (i = 1; i < 8; i = i + 1) begin : bits
    assign CO[i] = S[i] ? CO[i - 1] : DI[i];
    assign O[i] = S[i] ^ CO[i - 1];
  end endgenerate
endmodule

module DSP48E2 #(
  parameter AREG = 1, ACASCREG = 1, BREG = 1, BCASCREG = 1, MREG = 1, PREG = 1, CREG = 1, ADREG = 1, DREG = 1,
  parameter INMODEREG = 1, OPMODEREG = 1, ALUMODEREG = 1, CARRYINREG = 1, CARRYINSELREG = 1,
  parameter USE_MULT = "MULTIPLY", USE_SIMD = "ONE48", AMULTSEL = "A", BMULTSEL = "B",
  parameter A_INPUT = "DIRECT", B_INPUT = "DIRECT"
) (
  input wire CLK, input wire [29:0] A, ACIN, input wire [17:0] B, BCIN, input wire [47:0] C, PCIN, input wire [26:0] D,
  input wire [8:0] OPMODE, input wire [3:0] ALUMODE, input wire [4:0] INMODE, input wire [2:0] CARRYINSEL,
  input wire CARRYIN, CARRYCASCIN, MULTSIGNIN,
  input wire CEA1, CEA2, CEAD, CEALUMODE, CEB1, CEB2, CEC, CECARRYIN, CECTRL, CED, CEINMODE, CEM, CEP,
  input wire RSTA, RSTALLCARRYIN, RSTALUMODE, RSTB, RSTC, RSTCTRL, RSTD, RSTINMODE, RSTM, RSTP,
  output wire [47:0] P
);
  reg signed [26:0] a_held;
  reg signed [17:0] b_held;
  reg signed [44:0] m_held;
  reg [47:0] p_held;
  wire signed [26:0] a = AREG ? a_held : A[26:0];
  wire signed [17:0] b = BREG ? b_held : B;
  wire signed [44:0] product = a * b;
  wire signed [44:0] m = MREG ? m_held : product;
  wire [47:0] sum = {{3{m[44]}}, m};
  assign P = PREG ? p_held : sum;
  always @(posedge CLK) begin
    if (CEA2) a_held <= A[26:0];
    if (CEB2) b_held <= B;
    if (CEM) m_held <= product;
    if (CEP) p_held <= sum;
  end
  // only P = M is modelled: anything else must not look right
  always @(posedge CLK)
    if (OPMODE != 9'b000000101 || ALUMODE != 0 || INMODE != 0 || CARRYIN || CARRYINSEL != 0 || AREG > 1 || BREG > 1) begin
      $display("DSP48E2: a use that the model does not cover");
      $finish;
    end
endmodule

`default_nettype wire
