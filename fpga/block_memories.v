// Block memories as yosys' `memory_libmap` names them, each as the primitive that it occupies. Yosys' own map also works
// out initial contents and the order of parity bits, which takes seconds a run and changes no area: both are left out.
// Data of a primitive: a half of H bits for either port, of them D data and the rest parity; `new` in, `old` out.
`define DATA \
    .DINADIN(new[D-1:0]), .DINPADINP(new[H-1:D]), .DINBDIN(new[H+D-1:H]), .DINPBDINP(new[2*H-1:H+D]), \
    .DOUTADOUT(old[D-1:0]), .DOUTPADOUTP(old[H-1:D]), .DOUTBDOUT(old[H+D-1:H]), .DOUTPBDOUTP(old[2*H-1:H+D])

module \$__XILINX_BLOCKRAM_TDP_ (...);
  parameter INIT = 0;
  parameter OPTION_MODE = "FULL";
  parameter OPTION_HAS_RDFIRST = 0;
  parameter PORT_A_RD_WIDTH = 1;
  parameter PORT_A_WR_WIDTH = 1;
  parameter PORT_A_WR_EN_WIDTH = 1;
  parameter PORT_A_RD_USED = 1;
  parameter PORT_A_WR_USED = 1;
  parameter PORT_A_OPTION_WRITE_MODE = "NO_CHANGE";
  parameter PORT_A_RD_INIT_VALUE = 0;
  parameter PORT_A_RD_SRST_VALUE = 0;
  parameter PORT_B_RD_WIDTH = 1;
  parameter PORT_B_WR_WIDTH = 1;
  parameter PORT_B_WR_EN_WIDTH = 1;
  parameter PORT_B_RD_USED = 0;
  parameter PORT_B_WR_USED = 0;
  parameter PORT_B_OPTION_WRITE_MODE = "NO_CHANGE";
  parameter PORT_B_RD_INIT_VALUE = 0;
  parameter PORT_B_RD_SRST_VALUE = 0;
  input PORT_A_CLK, PORT_A_CLK_EN, PORT_A_RD_SRST, PORT_B_CLK, PORT_B_CLK_EN, PORT_B_RD_SRST;
  input [15:0] PORT_A_ADDR, PORT_B_ADDR;
  input [PORT_A_WR_WIDTH-1:0] PORT_A_WR_DATA;
  input [PORT_B_WR_WIDTH-1:0] PORT_B_WR_DATA;
  input [PORT_A_WR_EN_WIDTH-1:0] PORT_A_WR_EN;
  input [PORT_B_WR_EN_WIDTH-1:0] PORT_B_WR_EN;
  output [PORT_A_RD_WIDTH-1:0] PORT_A_RD_DATA;
  output [PORT_B_RD_WIDTH-1:0] PORT_B_RD_DATA;

  localparam D = OPTION_MODE == "HALF" ? 16 : 32;
  localparam H = D / 8 * 9;
  wire [H-1:0] new_a = PORT_A_WR_DATA, new_b = PORT_B_WR_DATA;
  wire [2*H-1:0] new = {new_b, new_a}, old;
  assign PORT_A_RD_DATA = old[H-1:0], PORT_B_RD_DATA = old[2*H-1:H];

`define CONTROLS \
    .CLKARDCLK(PORT_A_CLK), .ENARDEN(PORT_A_CLK_EN), .RSTRAMARSTRAM(PORT_A_RD_SRST), .ADDRARDADDR(PORT_A_ADDR), \
    .CLKBWRCLK(PORT_B_CLK), .ENBWREN(PORT_B_CLK_EN), .RSTRAMB(PORT_B_RD_SRST), .ADDRBWRADDR(PORT_B_ADDR), \
    .WEA({4{PORT_A_WR_EN}}), .WEBWE({4{PORT_B_WR_EN}})
  generate
    if (OPTION_MODE == "HALF") RAMB18E2 _TECHMAP_REPLACE_ (`DATA, `CONTROLS);
    else RAMB36E2 _TECHMAP_REPLACE_ (`DATA, `CONTROLS);
  endgenerate
endmodule
`undef CONTROLS

module \$__XILINX_BLOCKRAM_SDP_ (...);
  parameter INIT = 0;
  parameter OPTION_MODE = "FULL";
  parameter OPTION_WRITE_MODE = "READ_FIRST";
  parameter PORT_W_WIDTH = 1;
  parameter PORT_W_WR_EN_WIDTH = 1;
  parameter PORT_W_USED = 1;
  parameter PORT_R_WIDTH = 1;
  parameter PORT_R_USED = 0;
  parameter PORT_R_RD_INIT_VALUE = 0;
  parameter PORT_R_RD_SRST_VALUE = 0;
  input PORT_W_CLK, PORT_W_CLK_EN, PORT_R_CLK, PORT_R_CLK_EN, PORT_R_RD_SRST;
  input [15:0] PORT_W_ADDR, PORT_R_ADDR;
  input [PORT_W_WIDTH-1:0] PORT_W_WR_DATA;
  input [PORT_W_WR_EN_WIDTH-1:0] PORT_W_WR_EN;
  output [PORT_R_WIDTH-1:0] PORT_R_RD_DATA;

  localparam D = OPTION_MODE == "HALF" ? 16 : 32;
  localparam H = D / 8 * 9;
  wire [2*H-1:0] new = PORT_W_WR_DATA, old;
  assign PORT_R_RD_DATA = old;

`define CONTROLS \
    .CLKARDCLK(PORT_R_CLK), .ENARDEN(PORT_R_CLK_EN), .RSTRAMARSTRAM(PORT_R_RD_SRST), .ADDRARDADDR(PORT_R_ADDR), \
    .CLKBWRCLK(PORT_W_CLK), .ENBWREN(PORT_W_CLK_EN), .ADDRBWRADDR(PORT_W_ADDR), .WEBWE(PORT_W_WR_EN)
  generate
    if (OPTION_MODE == "HALF") RAMB18E2 _TECHMAP_REPLACE_ (`DATA, `CONTROLS);
    else RAMB36E2 _TECHMAP_REPLACE_ (`DATA, `CONTROLS);
  endgenerate
endmodule
`undef CONTROLS
